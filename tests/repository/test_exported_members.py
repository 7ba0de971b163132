"""The public names: complete, sorted, and all documented."""

import importlib.metadata
import inspect
import re
import tomllib
from types import ModuleType

import pytest

import steer
from tests.repository.blocks import ROOT


def test_all_is_sorted_and_holds_everything_visible() -> None:
    visible = {
        name
        for name, value in vars(steer).items()
        if not name.startswith("_") and (not isinstance(value, ModuleType) or name == "errors")
    }
    assert set(steer.__all__) == visible
    assert steer.__all__ == sorted(steer.__all__)


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
