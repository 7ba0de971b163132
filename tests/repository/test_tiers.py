"""Imports go down the tiers that docs/architecture.md names, so never round in a circle."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.repository.blocks import ROOT

PACKAGE = ROOT / "steer"
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
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", text, flags=re.M)
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
    rows = re.findall(r"^\| \d+ \| (.+) \|$", text, flags=re.M)
    listed = [module for names in rows for module in re.findall(r"`(\w+)`", names)]
    assert sorted(listed) == sorted({_top(path) for path in FILES})


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    tier, own = tiers(), _top(path)
    for found in imports(path):
        if found.top in (own, "__version__"):
            continue
        assert tier[found.top] < tier[own], (
            f"line {found.line}: {own} of tier {tier[own]} imports steer.{found.name} "
            f"of tier {tier[found.top]}"
        )


def test_a_room_shows_only_what_its_init_names() -> None:
    for path in FILES:
        inner = path.relative_to(PACKAGE).with_suffix("").parts
        if len(inner) == 2 and inner[0] not in _OPEN and inner[1] != "__init__":
            assert inner[1].startswith("_"), f"{path.name} stands open in {inner[0]}"


def test_few_modules_stand_beside_the_rooms() -> None:
    assert len([*PACKAGE.glob("*.py")]) <= 8


def test_only_the_mathematics_needs_nothing_but_torch() -> None:
    allowed = {"torch", "einops", "jaxtyping", "steer"}
    bottom = [*(PACKAGE / "algebra").glob("*.py")]
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


_OPEN = {"demo"}  # its modules are examples that pages import one by one
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
