"""The public names: complete, sorted, and all documented."""

import ast
import importlib.metadata
import inspect
import operator
import re
import subprocess
import sys
import tomllib
from types import ModuleType

import pytest

import steer
from tests.repository.blocks import ROOT


def test_all_is_sorted_and_holds_everything_visible() -> None:
    visible = {name for name in dir(steer) if not name.startswith("_") and _is_ours(name)}
    assert set(steer.__all__) == visible
    assert steer.__all__ == sorted(steer.__all__)


def _is_ours(name: str) -> bool:
    """Whether a name is of a value that steer defines, not of a module or of something imported."""
    value = getattr(steer, name)
    if isinstance(value, ModuleType):
        return name == "errors"
    return getattr(value, "__module__", "").startswith("steer")


LATER = ("sweep", "select", "measure", "view", "harness", "report", "console")


@pytest.mark.parametrize("before", ["errors", "measure._sweep", "selection", "report"])
def test_what_is_loaded_later_is_there_whatever_was_imported_before(before: str) -> None:
    """A function and a module of one name would replace each other, in the order of imports."""
    code = (
        f"import steer.{before}, steer\n"
        f"for name in {LATER}: print(name in dir(steer), type(getattr(steer, name)).__name__)"
    )
    found = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT)
    kinds = ["function" if name in steer.__all__ else "module" for name in LATER]
    assert found.splitlines() == [f"True {kind}" for kind in kinds]


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'steer' has no attribute 'swep'"):
        operator.attrgetter("swep")(steer)


@pytest.mark.parametrize("name", steer.__all__)
def test_a_public_name_has_a_docstring_and_stands_in_the_api_pages(name: str) -> None:
    value = getattr(steer, name)
    assert (inspect.getdoc(value) or "").strip()
    index = (ROOT / "docs/api/index.md").read_text()
    assert f"[`{name}`]" in index
    home = value.__name__ if isinstance(value, ModuleType) else value.__module__
    pages = "".join(page.read_text() for page in (ROOT / "docs/api").glob("*.md"))
    packages = [home.rsplit(".", n)[0] for n in range(home.count("."))]
    assert any(f".. automodule:: {package}\n" in pages for package in packages), home


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert project["tool"]["hatch"]["version"]["path"] == "steer/__init__.py"
    assert importlib.metadata.version("residual-steer") == steer.__version__
    assert re.findall(r"^## (\S+)", changes, flags=re.M)[0] == steer.__version__


def test_no_class_name_stands_twice() -> None:
    """A name means one thing, wherever in the package it is read."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "steer").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: where for name, where in found.items() if len(where) > 1} == {}
