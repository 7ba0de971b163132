"""The data sets as they are published, where they are at hand."""

from pathlib import Path
from typing import Any

import pytest

from steer.harness import available_tasks
from steer.harness._load import tasks_of

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the published data sets are not here")


def read(task: str) -> Any:
    """Return the splits of a task that ships."""
    (found,) = tasks_of(task, DATA)
    return found.dataset


@pytest.mark.parametrize(
    ("task", "sizes"),
    [
        ("gsm8k", {"test": 1319, "train": 7473}),
        ("humaneval", {"test": 164}),
        ("humaneval_chat", {"test": 164}),
        ("mbpp", {"test": 500}),
        ("truthfulqa_mc1", {"test": 817}),
        ("truthfulqa_mc2", {"test": 817}),
    ],
)
def test_every_document_is_read(task: str, sizes: dict[str, int]) -> None:
    assert {split: len(found) for split, found in read(task).items()} == sizes


def test_rows_with_an_empty_answer_are_left_out_and_counted() -> None:
    with pytest.warns(UserWarning, match="4 of 2312 rows are left out"):
        found = read("harmless")["test"]
    assert len(found) == 2308
    assert all(choice for row in found["choices"] for choice in row)


def test_a_true_answer_is_marked_in_every_question() -> None:
    one = read("truthfulqa_mc1")["test"]
    assert {sum(labels) for labels in one["labels"]} == {1}
    several = read("truthfulqa_mc2")["test"]
    assert all(0 < sum(labels) < len(labels) for labels in several["labels"])


def test_every_persona_is_read() -> None:
    names = [name for name in available_tasks(DATA) if ":" in name]
    assert "persona:agreeableness" in names
    for name in names:
        choices = read(name)["test"]["choices"]
        assert {frozenset(pair) for pair in choices} == {frozenset({"Yes", "No"})}
