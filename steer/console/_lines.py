"""What a line typed into the console means.

- A line that begins with `/` is a command.
- A line of which every word is `name=value` turns knobs; what is wrong in it is an error, and
  nothing is turned then. Knobs that it does not name stay. A name with spaces stands in quotes;
  spaces around `=` are allowed where every name is that of a knob.
- Every other line is a prompt. `/ask TEXT` asks a text that would be one of the former.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from steer.errors import CompositionError, TextError

_MARK = "\N{BYTE ORDER MARK}"  # what some editors write in front of UTF-8

COMMANDS = {
    "/ask TEXT": "ask a text whatever it looks like",
    "/knobs": "show where the knobs stand",
    "/reset": "put all knobs to zero",
    "/help": "show this",
    "/quit": "end; so does the end of the input (Ctrl-D)",
}


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt to answer.

    Args:
        prompt: The prompt.
    """

    prompt: str


@dataclass(frozen=True, slots=True)
class Turn:
    """Knobs to turn.

    Args:
        coefficients: New coefficient of each domain named, dimensionless.
    """

    coefficients: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Command:
    """Something else to do.

    Args:
        name: What.
    """

    name: Literal["nothing", "knobs", "reset", "help", "quit"]


def read_line(line: str, domains: Sequence[str]) -> Ask | Turn | Command:
    """Return what a line means.

    Args:
        line: The line.
        domains: Names of the knobs.

    Raises:
        CompositionError: It names a domain that does not exist, or a value that is no number.
        TextError: It is no readable text, there is no such command, or `/ask` has no text.
    """
    line = line.removeprefix(_MARK).strip()
    if any("\ud800" <= c <= "\udfff" for c in line):  # bytes that could not be decoded
        raise TextError(
            "this line cannot be read",
            found=ascii(line)[:120],
            expected="text in UTF-8",
            do="save the input as UTF-8, or set the terminal to it: LANG=C.UTF-8",
        )
    if not line:
        return Command("nothing")
    if line.startswith("/"):
        return _command(line, domains)
    pairs = _assignments(line)
    if pairs is None and (spaced := _assignments(re.sub(r"\s*=\s*", "=", line))) is not None:
        pairs = spaced if all(name in domains for name, _ in spaced) else None
    return Ask(line) if pairs is None else Turn(dict(_turned(pair, domains) for pair in pairs))


def _command(line: str, domains: Sequence[str]) -> Ask | Turn | Command:
    word, *after = line.split(maxsplit=1)
    rest = "".join(after)
    if word == "/ask":
        return _ask(rest)
    match word, rest:
        case "/knobs", "":
            return Command("knobs")
        case "/reset", "":
            return Turn(dict.fromkeys(domains, 0.0))
        case "/help", "":
            return Command("help")
        case "/quit", "":
            return Command("quit")
    raise TextError(
        "there is no such command",
        found=line,
        expected=", ".join(COMMANDS),
        do=f"to ask this as a prompt: /ask {line}",
    )


def _ask(text: str) -> Ask:
    if text:
        return Ask(text)
    raise TextError(
        "there is nothing to ask",
        found="/ask without a text",
        expected="/ask TEXT",
        do="write the prompt behind it: /ask Is it safe?",
    )


def _assignments(line: str) -> list[tuple[str, str]] | None:
    """Return name and value of every word; None if some word is not of this form."""
    try:
        words = shlex.split(line)
    except ValueError:  # a quotation mark or an apostrophe without its partner
        return None
    pairs = [word.rpartition("=") for word in words]
    if not all(name and equals for name, equals, _ in pairs):
        return None
    return [(name, value) for name, _, value in pairs]


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
            f"the coefficient of {name!r} is no number",
            found=value or "nothing",
            expected="a number such as 0.5",
            do=f"write for instance {name}=0.5; to ask this as a prompt: /ask {name}={value}",
        ) from None
