"""The grammar of a line typed into the console.

- A line that begins with `/` is a command.
- A line in which every word is `name=value` turns these knobs; a name with spaces is quoted.
  Spaces around `=` are allowed where every name is that of a knob.
- Every other line is a prompt; `/ask TEXT` asks a text that would be one of the former.
"""

import re
import shlex
from collections.abc import Sequence

from steer.errors import CompositionError, TextError

_MARK = "\N{BYTE ORDER MARK}"  # some editors write it in front of UTF-8
Turned = dict[str, float]  # new coefficients by domain

COMMANDS = {
    "/ask TEXT": "ask a text whatever it looks like",
    "/knobs": "show where the knobs stand",
    "/reset": "put all knobs to zero",
    "/help": "show this",
    "/quit": "end; so does the end of the input (Ctrl-D)",
}


def read_line(line: str, domains: Sequence[str]) -> tuple[str, str | Turned]:
    """Return what to do and with what: `ask` a text, `turn` knobs, or a command without its slash.

    Raises:
        CompositionError: The line names an unknown domain, or a value that is not a number.
        TextError: The line is not UTF-8, or there is no such command, or `/ask` has no text.
    """
    line = line.removeprefix(_MARK).strip()
    if any("\ud800" <= c <= "\udfff" for c in line):  # bytes that could not be decoded
        raise TextError(
            "this line is not UTF-8",
            found=ascii(line)[:120],
            expected="text in UTF-8",
            do="save the input as UTF-8, or set the terminal to it: LANG=C.UTF-8",
        )
    if line.startswith("/"):
        return _command(line)
    words = _assignments(line, domains) if line else None
    return ("ask", line) if words is None else ("turn", dict(_turned(w, domains) for w in words))


def _command(line: str) -> tuple[str, str]:
    name, *text = line.split(maxsplit=1)
    if name == "/ask" and text:
        return "ask", text[0]
    if name == "/ask":
        raise TextError(
            "there is nothing to ask",
            found="/ask without a text",
            expected="/ask TEXT",
            do="write the prompt after it: /ask Is it safe?",
        )
    if line in COMMANDS:
        return line[1:], ""
    raise TextError(
        "there is no such command",
        found=line,
        expected=", ".join(COMMANDS),
        do=f"to ask this as a prompt: /ask {line}",
    )


def _assignments(line: str, domains: Sequence[str]) -> list[tuple[str, str]] | None:
    """Return name and value of every word; None if the line is a prompt."""
    joined = re.sub(r"\s*=\s*", "=", line)
    try:
        words = [word.rpartition("=") for word in shlex.split(joined)]
    except ValueError:  # a quotation mark or an apostrophe without its partner
        return None
    if not all(name and equals for name, equals, _ in words):
        return None
    pairs = [(name, value) for name, _, value in words]
    known = all(name in domains for name, _ in pairs)
    return pairs if known or joined == line else None


def _turned(pair: tuple[str, str], domains: Sequence[str]) -> tuple[str, float]:
    name, value = pair
    if name not in domains:
        raise CompositionError(
            "there is no such domain",
            found=name,
            expected=", ".join(domains),
            do=f"check the spelling; to ask this as a prompt: /ask {name}={value}",
        )
    try:
        return name, float(value)
    except ValueError:
        raise CompositionError(
            f"the coefficient of {name!r} is not a number",
            found=value or "nothing",
            expected="a number such as 0.5",
            do=f"write for instance {name}=0.5; to ask this as a prompt: /ask {name}={value}",
        ) from None
