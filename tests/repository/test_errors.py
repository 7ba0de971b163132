"""Every error class has a page with a real message, and stands in the tree of `steer.errors`."""

import inspect
import pickle
import re

import pytest

from steer import errors
from tests.repository.blocks import ROOT, page

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, errors.SteerError)
}
RAISED = sorted(set(CLASSES) - {"SteerError"})


def test_every_class_has_a_page_and_every_page_a_class() -> None:
    pages = {path.stem for path in (ROOT / "docs/errors").glob("*.md")} - {"index"}
    assert pages == set(CLASSES)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_class_stands_in_the_tree_and_in_the_index(name: str) -> None:
    index = (ROOT / "docs/errors/index.md").read_text()
    assert name == "SteerError" or f"[{name}]({name}.md)" in index
    assert f"\n{name}\n" in index


@pytest.mark.parametrize("name", sorted(set(RAISED) - {"MissingExtraError"}))
def test_a_page_shows_code_and_the_whole_message(name: str) -> None:
    """That the code raises exactly this message is tested with the code of the other pages."""
    shown = [b.output for b in page(ROOT / f"docs/errors/{name}.md").blocks if b.output]
    assert shown, "no code block that is followed by its message"
    for word in ("found:", "expected:", "to do:"):
        assert word in shown[0]


@pytest.mark.parametrize("name", RAISED)
def test_a_class_is_raised_somewhere(name: str) -> None:
    code = "".join(path.read_text() for path in (ROOT / "steer").rglob("*.py"))
    assert re.search(rf"(raise|return|error =) {name}\(", code)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_an_error_keeps_its_parts_through_pickling(name: str) -> None:
    error = CLASSES[name]("what is wrong", found=3, expected="4", do="add 1")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is CLASSES[name]
    assert (again.what, again.found, again.expected, again.do) == (
        "what is wrong",
        "3",
        "4",
        "add 1",
    )
    assert str(again) == str(error)
    for part in ("what is wrong", "found:    3", "expected: 4", "to do:    add 1"):
        assert part in str(error)
