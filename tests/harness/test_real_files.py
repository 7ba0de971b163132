"""The data sets as they are published, where they are at hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steer.harness import SandboxLimits, available_tasks, code_execution, run_programs
from steer.harness import _documents as documents
from steer.harness._files import locate, read_lines
from steer.harness._programs import humaneval_program, mbpp_program

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the published data sets are not here")


@pytest.mark.parametrize(
    ("read", "sizes"),
    [
        (documents.gsm8k, {"test": 1319, "train": 7473}),
        (documents.humaneval, {"test": 164}),
        (documents.mbpp, {"test": 500}),
        (documents.truthfulqa_mc1, {"test": 817}),
        (documents.truthfulqa_mc2, {"test": 817}),
    ],
)
def test_every_document_is_read(read: Callable[..., Any], sizes: dict[str, int]) -> None:
    assert {split: len(found) for split, found in read(str(DATA)).items()} == sizes


def test_rows_with_an_empty_answer_are_left_out_and_counted() -> None:
    with pytest.warns(UserWarning, match="4 of 2312 rows are left out"):
        found = documents.harmless(str(DATA))["test"]
    assert len(found) == 2308
    assert all(choice for row in found["choices"] for choice in row)


def test_a_true_answer_is_marked_in_every_question() -> None:
    one = documents.truthfulqa_mc1(str(DATA))["test"]
    assert {sum(labels) for labels in one["labels"]} == {1}
    several = documents.truthfulqa_mc2(str(DATA))["test"]
    assert all(0 < sum(labels) < len(labels) for labels in several["labels"])


def test_every_persona_is_read() -> None:
    names = [name.partition(":")[2] for name in available_tasks(DATA) if ":" in name]
    assert "agreeableness" in names
    for name in names:
        choices = documents.persona(str(DATA), name)["test"]["choices"]
        assert {frozenset(pair) for pair in choices} == {frozenset({"Yes", "No"})}


def test_published_solutions_pass_and_empty_ones_do_not() -> None:
    solved = read_lines(locate(DATA, "humaneval/HumanEval.jsonl"))
    problems = documents.humaneval(str(DATA))["test"]
    sources = [humaneval_program(problems[k], solved[k]["canonical_solution"]) for k in range(4)]
    references = {
        row["task_id"]: row["code"] for row in read_lines(locate(DATA, "mbpp/mbpp.jsonl"))
    }
    tasks = documents.mbpp(str(DATA))["test"]
    sources += [mbpp_program(tasks[k], references[tasks[k]["task_id"]]) for k in range(4)]
    sources += [humaneval_program(problems[0], "    pass\n"), mbpp_program(tasks[0], "")]
    with code_execution(SandboxLimits(seconds=20)):
        found = run_programs(sources)
    assert [verdict.passed for verdict in found] == [True] * 8 + [False] * 2
