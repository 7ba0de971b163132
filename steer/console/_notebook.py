"""The console as widgets of a notebook."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from steer._check import need
from steer.console._knobs import Knob
from steer.console._state import State
from steer.console._worker import Worker
from steer.console._writer import Writer
from steer.show._markup import escaped

_LONGEST = 4096  # tokens of an answer that can be asked for
_WAITING = "Another console is answering with this model; this one comes next."
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


class Console:
    """Sliders, a prompt, and two texts side by side; made by `steer.console.console`.

    Attributes:
        sliders: The slider of each domain.
        prompt: The box with the prompt.
        max_new_tokens: The box with the length.
        reset: The button that puts every knob to zero.
        answer: The button that answers again.
        unsteered: The unsteered text, escaped.
        steered: The steered text, escaped.
        message: What went wrong, or what to know of the texts, escaped.
        widget: All of them together.
        state: What is shown.
        error: What went wrong, as it was raised.
    """

    def __init__(
        self, writer: Writer, knobs: tuple[Knob, ...], prompt: str, max_new_tokens: int
    ) -> None:
        need("a console in a notebook", "ipywidgets", extra="notebook")
        import ipywidgets as w

        wide = w.Layout(width="auto")
        self.sliders: Mapping[str, Any] = {knob.domain: _slider(w, knob) for knob in knobs}
        self.prompt = w.Textarea(
            value=prompt,
            placeholder="A prompt; it is answered when you leave the box",
            continuous_update=False,
            rows=2,
            layout=wide,
        )
        self.prompt.tooltip = "Prompt"
        self.max_new_tokens = w.BoundedIntText(
            value=max_new_tokens,
            min=1,
            max=max(_LONGEST, max_new_tokens),
            description="Longest answer, tokens",
            style={"description_width": "initial"},
            layout=w.Layout(width="230px"),
        )
        self.reset = w.Button(description="All knobs to zero", icon="undo")
        self.answer = w.Button(description="Answer", icon="play", button_style="primary")
        self.unsteered, self.steered = w.HTML(layout=wide), w.HTML(layout=wide)
        self.message = w.HTML(layout=wide)
        self.widget = self._laid_out(w)
        self.widget.add_class("steer-console")
        self._writer = writer
        self._closed = False
        self.error: Exception | None = None
        self.state = self._asked()
        self._worker = Worker(self._run, self._failed)
        for box in (*self.sliders.values(), self.prompt, self.max_new_tokens):
            box.observe(self._ask, names="value")
        self.answer.on_click(self._ask)
        self.reset.on_click(self._to_zero)
        self._show(self.state)
        self._ask()

    def _laid_out(self, w: Any) -> Any:
        """Return all widgets in one box."""
        buttons = w.HBox([self.answer, self.reset, self.max_new_tokens])
        buttons.layout.flex_flow = "row wrap"
        columns = w.GridBox([self.unsteered, self.steered])
        columns.layout.grid_template_columns = "repeat(auto-fit, minmax(min(100%, 320px), 1fr))"
        columns.layout.grid_gap = "12px"
        columns.layout.margin = "8px 0 0 0"
        return w.VBox(
            [self.prompt, w.VBox(list(self.sliders.values())), buttons, columns, self.message],
            layout=w.Layout(max_width="1100px", padding="4px 0"),
        )

    @property
    def coefficients(self) -> dict[str, float]:
        """Where the knobs stand, dimensionless: `lm.steered(composition, box.coefficients)`."""
        return {domain: float(box.value) for domain, box in self.sliders.items()}

    def wait(self) -> State:
        """Wait until both texts are written, and return the state then."""
        self._worker.wait()
        return self.state

    def close(self) -> None:
        """Stop the answer under way and remove the widgets; a second call does nothing."""
        self._closed = True
        for box in (*self.sliders.values(), self.prompt, self.max_new_tokens):
            box.unobserve_all()
        self._worker.close()
        parts = (self.unsteered, self.steered, self.message, self.answer, self.reset)
        for box in (*self.sliders.values(), self.prompt, self.max_new_tokens, *parts, self.widget):
            box.close()

    def _asked(self) -> State:
        return State(self.prompt.value, self.coefficients, self.max_new_tokens.value)

    def _ask(self, _: object = None) -> None:
        if not self._closed:
            self._worker.ask(self._asked())

    def _to_zero(self, _: object) -> None:
        for box in self.sliders.values():
            box.value = 0.0

    def _run(self, state: State, wanted: Any) -> None:
        self._writer.run(state, self._show, wanted)

    def _failed(self, state: State, error: Exception) -> None:
        self.error = error
        said = f"{type(error).__name__}: {error}"
        self._show(replace(state, doing="failed", error=said))

    def _show(self, state: State) -> None:
        if self._closed:
            return
        if state.doing != "done" and state.question == self.state.question:
            state = replace(  # the old text stays until there is a new word
                state,
                unsteered=state.unsteered or self.state.unsteered,
                steered=state.steered or self.state.steered,
            )
        self.state = state
        if state.doing != "failed":
            self.error = None
        self.unsteered.value = _column("unsteered", "", state.unsteered, state)
        knobs = ", ".join(f"{d} {c:+.3g}" for d, c in state.coefficients.items())
        self.steered.value = _column("steered", knobs, state.steered, state)
        said = _WAITING if state.doing == "waiting" else state.error or state.note
        self.message.value = _message(said, bool(state.error))

    def _repr_mimebundle_(self, **options: Any) -> Any:
        if self._closed:
            return {"text/plain": repr(self)}
        return self.widget._repr_mimebundle_(**options)

    def __repr__(self) -> str:
        knobs = ", ".join(f"{d}={c:+g}" for d, c in self.coefficients.items())
        return f"Console({knobs}{', closed' if self._closed else ''})"


def _slider(widgets: Any, knob: Knob) -> Any:
    decimals = max(2, -math.floor(math.log10(knob.step)))
    return widgets.FloatSlider(
        value=knob.value,
        min=knob.low,
        max=knob.high,
        step=knob.step,
        description=knob.domain,
        readout_format=f"+.{decimals}f",
        style={"description_width": "8em"},
        layout=widgets.Layout(width="auto", max_width="640px"),
    )


def _column(which: Literal["unsteered", "steered"], setting: str, text: str, state: State) -> str:
    """Return a text under its heading, with a cursor where more text comes."""
    cursor = "▍" if state.doing == which else ""
    head = f"<b>{which}</b> <span style='{_QUIET};margin-left:8px'>{escaped(setting)}</span>"
    body = f"<div class='steer-{which}' style='{_TEXT}'>"
    box = _BOX.format(colour=_COLOURS[which])
    return f"<div style='{box}'>{head}{body}{escaped(text)}{cursor}</div></div>"


def _message(said: str, wrong: bool) -> str:
    """Return a message under the texts, in red if it reports an error; nothing if it is empty."""
    if not said:
        return ""
    colour = "var(--jp-error-color1,#d32f2f)" if wrong else "inherit"
    return (
        f"<pre role='status' class='steer-message' style='color:{colour};"
        f"white-space:pre-wrap'>{escaped(said)}</pre>"
    )
