"""What errors advise in Python, as options of the command that runs."""

import ast
import re
from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand

from steer.errors import SteerError

_WRAPPED = re.compile(r"\b\w+=[A-Z]\w*\((?P<name>[a-z_]+)(=[^(),]*)\)")  # limits=Limits(kl=0.5)
_CALL = re.compile(r"((?<![=\w.])[A-Za-z_][\w.]*\([^()]*\))")  # steer.low_rank(vector, rank=16)
_ARGUMENT = re.compile(
    r"\b(?P<name>[a-z_]+)=(?P<value>\{.*?\}|\[.*?\]|\(.*?\)|\".*?\"|'.*?'|[\w.…]*\w|…)?"
)
_ALSO = {"position": "at", "positions": "at"}  # arguments without an option of their name


class Command(TyperCommand):
    """A command whose errors advise its own options in place of the library's arguments."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except SteerError as error:
            do = with_options(error.do, self.params)
            raise type(error)(
                error.what, found=error.found, expected=error.expected, do=do
            ) from error.__cause__


def with_options(advice: str, options: Iterable[Any]) -> str:
    """Return a text with `name=value` as `--name value` wherever there is such an option."""
    known = {option.name: option for option in options}

    def written(match: re.Match[str]) -> str:
        option = known.get(_ALSO.get(match["name"], match["name"]))
        if option is None or not option.opts[0].startswith("-"):
            return match[0]
        if match["value"] == "False" and option.secondary_opts:
            return str(option.secondary_opts[0])
        if match["value"] == "True":
            return str(option.opts[0])
        return f"{option.opts[0]} {_plain(match['value'] or '')}".strip()

    def unwrapped(match: re.Match[str]) -> str:
        return match["name"] + match[2] if match["name"] in known else match[0]

    parts = _CALL.split(_WRAPPED.sub(unwrapped, advice))  # calls, which are Python, are odd
    return "".join(p if k % 2 else _ARGUMENT.sub(written, p) for k, p in enumerate(parts))


def _plain(value: str) -> str:
    """Return a Python value as the command line takes it: lists and mappings with commas."""
    try:
        found = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value.removeprefix("torch.")
    if isinstance(found, dict):
        found = [f"{k}={'…' if v is ... else v}" for k, v in found.items()]
    text = ",".join(map(str, found)) if isinstance(found, list | tuple) else str(found)
    return f"'{text}'" if " " in text else text
