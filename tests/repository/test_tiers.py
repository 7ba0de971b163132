"""Imports go down the tiers that docs/architecture.md names, and never round in a circle."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.repository.blocks import ROOT

PACKAGE = ROOT / "steer"
UPWARDS = {
    ("vector", "store"),
    ("model", "strength"),
    *((value, "show") for value in ("shown", "vector", "gate", "composition")),
}  # inside methods: a vector saves itself, a model measures a strength, values show themselves
FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


@dataclass(frozen=True)
class Import:
    """One import of a module of the package.

    Args:
        name: Dotted name without `steer.`.
        inside: Whether it stands inside a function.
        typing_only: Whether it stands under `if TYPE_CHECKING`.
        line: Its line.
    """

    name: str
    inside: bool
    typing_only: bool
    line: int

    @property
    def top(self) -> str:
        """Name of the module or package directly below `steer`."""
        return self.name.split(".")[0]


def tiers() -> dict[str, int]:
    """Return the tier of each module from the table of the architecture page."""
    text = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| (\d) [^|]+\| (.+) \|$", text, flags=re.M)
    return {module: int(tier) for tier, names in rows for module in re.findall(r"`(\w+)`", names)}


def imports(path: Path) -> list[Import]:
    """Return every import of the package's own modules in a file, wherever it stands."""
    return list(_imports(ast.parse(path.read_text()), inside=False, typing_only=False))


def _imports(node: ast.AST, *, inside: bool, typing_only: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ImportFrom):
            yield from _from(child, inside, typing_only)
        elif isinstance(child, ast.Import):
            for alias in child.names:
                if alias.name.startswith("steer."):
                    yield Import(alias.name[len("steer.") :], inside, typing_only, child.lineno)
        else:
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            checking = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            yield from _imports(
                child, inside=inside or function, typing_only=typing_only or checking
            )


def _from(node: ast.ImportFrom, inside: bool, typing_only: bool) -> Iterator[Import]:
    assert node.level == 0, f"line {node.lineno}: a relative import"
    module = node.module or ""
    if module == "steer":
        for alias in node.names:
            yield Import(alias.name, inside, typing_only, node.lineno)
    elif module.startswith("steer."):
        yield Import(module[len("steer.") :], inside, typing_only, node.lineno)


def _top(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def test_the_table_names_every_module_once() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| \d [^|]+\| (.+) \|$", text, flags=re.M)
    listed = [module for names in rows for module in re.findall(r"`(\w+)`", names)]
    assert sorted(listed) == sorted({_top(path) for path in FILES})


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    tier, own = tiers(), _top(path)
    for found in imports(path):
        if (own, found.top) in UPWARDS or found.top == "__version__":
            late = found.inside or found.typing_only
            assert late, f"line {found.line}: steer.{found.name} is imported on load"
            continue
        assert tier[found.top] <= tier[own], (
            f"line {found.line}: tier {tier[own]} imports steer.{found.name} "
            f"of tier {tier[found.top]}"
        )


def test_imports_on_load_go_round_in_no_circle() -> None:
    graph = {
        _top(path): {
            found.top
            for other in FILES
            if _top(other) == _top(path)
            for found in imports(other)
            if not found.inside and not found.typing_only
        }
        - {_top(path)}
        for path in FILES
    }
    while graph:
        leaves = [name for name, needed in graph.items() if not needed & graph.keys()]
        assert leaves, f"a circle among {sorted(graph)}"
        for name in leaves:
            del graph[name]


def test_only_the_mathematics_needs_nothing_but_torch() -> None:
    allowed = {"torch", "einops", "jaxtyping", "steer"}
    bottom = [path for path in FILES if tiers()[_top(path)] == 0]
    assert bottom
    for path in bottom:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                top = name.split(".")[0]
                assert top in allowed or top in _STANDARD, f"{path.name} imports {name}"


_STANDARD = {
    "abc",
    "collections",
    "dataclasses",
    "difflib",
    "functools",
    "itertools",
    "math",
    "numbers",
    "operator",
    "os",
    "re",
    "types",
    "typing",
    "warnings",
}
