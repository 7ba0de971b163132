"""Lines of the package, room by room: `python -m tests.repository.lines`.

A line counts once: as documentation (docstrings and comments), as part of building an error, as an
import at the top of a module, as blank, or else as logic, signatures included.
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.repository.blocks import ROOT

PACKAGE = ROOT / "steer"
COLUMNS = ("files", "lines", "logic", "docs", "errors", "imports", "blank")


def main() -> int:
    """Write one line for each room, the largest first, and their sum."""
    rooms: dict[str, Counter[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE).parts
        rooms.setdefault(inside[0] if len(inside) > 1 else ".", Counter()).update(counted(path))
    _say("room", COLUMNS)
    for room in sorted(rooms, key=lambda name: -rooms[name]["lines"]):
        _say(room, map(str, _row(rooms[room])))
    _say("all", map(str, _row(sum(rooms.values(), Counter()))))
    return 0


def counted(path: Path) -> Counter[str]:
    """Return how many lines of each kind a file has."""
    source = path.read_text()
    lines, tree = source.splitlines(), ast.parse(source)
    docs = set(_numbers(_docstrings(tree)))
    docs |= {n for n, line in enumerate(lines, start=1) if line.lstrip().startswith("#")}
    blank = {n for n, line in enumerate(lines, start=1) if not line.strip()} - docs
    raised = [node for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    errors = set(_numbers(raised)) - docs - blank
    imports = set(_numbers(node for node in tree.body if _imports(node))) - docs - blank
    kinds = {"docs": docs, "errors": errors, "imports": imports, "blank": blank}
    found = Counter({name: len(numbers) for name, numbers in kinds.items()})
    logic = len(lines) - sum(found.values())
    return found + Counter({"files": 1, "lines": len(lines), "logic": logic})


def _docstrings(tree: ast.Module) -> Iterator[ast.stmt]:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            yield node.body[0]


def _imports(node: ast.stmt) -> bool:
    """Return whether a statement imports, for the program or for the type checker alone."""
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.Import | ast.ImportFrom)


def _numbers(nodes: Iterable[ast.stmt]) -> Iterator[int]:
    for node in nodes:
        yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)


def _row(counts: Counter[str]) -> list[int]:
    return [counts[name] for name in COLUMNS]


def _say(name: str, cells: Iterable[str]) -> None:
    sys.stdout.write(f"{name:<12}{''.join(f'{cell:>9}' for cell in cells)}\n")


if __name__ == "__main__":
    sys.exit(main())
