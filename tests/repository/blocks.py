"""Code blocks of Markdown pages: finding them, running them, comparing what they print.

What is run:

- a ``python`` block, in one namespace per page; the blocks of a page run in their order;
- ``$ steer …`` lines of a ``console`` block, in the same process;
- ``$ make …`` and ``$ pip install …`` lines are not run: they must name a target or an extra that
  exists.

A ``text`` block right after a ``python`` block is what it prints, or the error it raises. Lines of
a ``console`` block that follow a command are what that prints. ``…`` stands for lines, or
the end of a line, left out.
A comment ``<!-- not run: reason -->`` in front of a block takes it out.
"""

import contextlib
import io
import re
import shlex
import tomllib
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cli.run import steer

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(
    r"(?P<skip><!-- not run: .+? -->\n+)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S
)
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?%?")
_DRAWN = re.compile("[─-▟]+")  # borders and bars
_POINTS = 6.0  # by which a measured share, in percent, may differ
_RELATIVE = 0.1  # by which a measured decimal may differ


@dataclass
class Block:
    """One fenced block.

    Args:
        kind: The word after the fence.
        text: What is inside.
        line: Its first line in the file, counted from 1.
        skipped: Whether a comment takes it out.
        output: The text of a ``text`` block that follows, if this is a ``python`` block.
    """

    kind: str
    text: str
    line: int
    skipped: bool
    output: str | None = None


@dataclass
class Page:
    """The blocks of a page and the names its code has defined."""

    path: Path
    blocks: list[Block]
    names: dict[str, Any] = field(default_factory=dict)

    def run(self) -> int:
        """Run everything; return how many blocks and commands were run."""
        return sum(self._run(block) for block in self.blocks if not block.skipped)

    def _run(self, block: Block) -> int:
        where = f"{self.path.relative_to(ROOT)}:{block.line}"
        if block.kind == "python":
            self._python(block, where)
            return 1
        if block.kind == "console":
            return sum(_command(line, shown, where) for line, shown in _commands(block.text))
        return 0

    def _python(self, block: Block, where: str) -> None:
        code = compile("\n" * (block.line - 1) + block.text, str(self.path), "exec")
        self.names.setdefault("__name__", "__main__")
        with contextlib.redirect_stdout(io.StringIO()) as out:
            try:
                exec(code, self.names)  # the page's own code is what is tested
            except Exception as error:
                if block.output is None or not block.output.startswith(type(error).__module__):
                    raise
                raised = "".join(traceback.format_exception_only(error))
                difference = differs(raised, block.output)
                assert difference is None, f"{where}: {difference}"
                assert len(raised.splitlines()) == len(block.output.splitlines()), where
                return
        wanted = block.output
        if wanted is not None:
            difference = differs(out.getvalue(), wanted)
            assert difference is None, f"{where}: {difference}"


def page(path: Path) -> Page:
    """Return the blocks of a Markdown file."""
    text = path.read_text(encoding="utf-8")
    blocks: list[Block] = []
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start("text")) + 1
        block = Block(match["kind"], match["text"], line, match["skip"] is not None)
        before = text[: match.start()].rstrip().endswith("```")
        if block.kind == "text" and before and blocks and blocks[-1].kind == "python":
            blocks[-1].output = block.text
        blocks.append(block)
    return Page(path, blocks)


def _commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a console block with the output shown under it."""
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        command, _, shown = re.sub(r"\\\n\s*", "", part).partition("\n")
        yield command.strip(), shown


def _command(line: str, shown: str, where: str) -> int:
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M)
        assert words[1] in targets, f"{where}: no such target"
        return 0
    if words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for name in re.findall(r"\[(\w+)\]", line):
            assert name in extras["optional-dependencies"], f"{where}: no such extra"
        return 0
    assert words[0] == "steer", f"{where}: {words[0]} cannot be run"
    status, out, err = steer(*words[1:])
    if shown.strip():
        difference = differs(out + err, shown)
        assert difference is None, f"{where}: {difference}"
    else:
        assert status == 0, f"{where}: status {status}\n{err}"
    return 1


def differs(found: str, wanted: str) -> str | None:
    """Return the first line of `wanted` that `found` does not hold in its order, or None.

    Spaces count as one and drawn lines as none. Whole numbers must be equal. Measured numbers (with
    a decimal point or a percent sign, and in tables those of two digits) may differ a little from
    machine to machine.
    """
    have = [_words(line) for line in found.splitlines()]
    start = 0
    for line in wanted.splitlines():
        words = _words(line)
        if words in ([], ["…"]):
            continue
        table = "│" in line
        position = next((i for i in range(start, len(have)) if _same(have[i], words, table)), None)
        if position is None:
            return f"not printed: {line!r}; printed were\n{found}"
        start = position + 1
    return None


def _words(line: str) -> list[str]:
    return _DRAWN.sub(" ", line).split()


def _same(found: list[str], wanted: list[str], table: bool) -> bool:
    if wanted[-1] == "…":
        wanted = wanted[:-1]
        found = found[: len(wanted)]
    return len(found) == len(wanted) and all(
        _alike(a, b, table) for a, b in zip(found, wanted, strict=True)
    )


def _alike(found: str, wanted: str, table: bool) -> bool:
    if _NUMBER.sub("#", found) != _NUMBER.sub("#", wanted):
        return False
    numbers = zip(_NUMBER.findall(found), _NUMBER.findall(wanted), strict=True)
    return all(_near(a, b, table) for a, b in numbers)


def _near(found: str, wanted: str, table: bool) -> bool:
    if found == wanted:
        return True
    a, b = float(found.rstrip("%")), float(wanted.rstrip("%"))
    if found.endswith("%") and wanted.endswith("%"):
        return abs(a - b) <= _POINTS
    if "." in found + wanted:
        return abs(a - b) <= _RELATIVE * max(abs(a), abs(b), 0.1)
    return table and min(a, b) >= 10 and abs(a - b) <= _POINTS
