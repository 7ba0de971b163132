"""The texts of a console as HTML; whatever a model or a user wrote is escaped."""

from typing import Literal

from steer.console._state import State
from steer.show._markup import escaped

_BOX = (
    "border:1px solid var(--jp-border-color2,#bdbdbd);border-top:3px solid {colour};"
    "border-radius:4px;padding:8px 12px;min-height:9em;line-height:1.5;"
    "color:var(--jp-ui-font-color1,inherit);font-size:var(--jp-content-font-size1,14px)"
)
_COLOURS = {
    "unsteered": "var(--jp-border-color1,#9e9e9e)",
    "steered": "var(--jp-brand-color1,#1976d2)",
}
_TEXT = "margin-top:4px;white-space:pre-wrap;overflow-wrap:anywhere"
_QUIET = "color:var(--jp-ui-font-color2,#616161);font-size:0.9em"


def text_column(
    which: Literal["unsteered", "steered"], setting: str, text: str, state: State
) -> str:
    """Return a text under its heading, with a cursor where more text comes."""
    cursor = "▍" if state.doing == which else ""
    head = f"<b>{which}</b> <span style='{_QUIET};margin-left:8px'>{escaped(setting)}</span>"
    body = f"<div class='steer-{which}' style='{_TEXT}'>"
    box = _BOX.format(colour=_COLOURS[which])
    return f"<div style='{box}'>{head}{body}{escaped(text)}{cursor}</div></div>"


def message(said: str, wrong: bool) -> str:
    """Return a message under the texts, in red if it reports an error; nothing if it is empty."""
    if not said:
        return ""
    colour = "var(--jp-error-color1,#d32f2f)" if wrong else "inherit"
    return (
        f"<pre role='status' class='steer-message' style='color:{colour};"
        f"white-space:pre-wrap'>{escaped(said)}</pre>"
    )
