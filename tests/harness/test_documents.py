"""Published files become documents; what is missing or damaged is named."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steer.harness import HarnessError, available_tasks
from steer.harness import _documents as documents
from tests.harness import files


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(files.write(tmp_path))


def test_gsm8k_loses_the_calculators_notes(data: str) -> None:
    found = documents.gsm8k(data)
    assert [len(found[split]) for split in ("test", "train")] == [4, 6]
    assert found["test"][0]["answer"] == "3 pens\n#### 3"
    assert found["test"][0]["number"] == "3"


def test_mbpp_takes_the_test_problems(data: str) -> None:
    assert documents.mbpp(data)["test"]["task_id"] == [11, 12]


def test_humaneval_does_not_carry_the_solution(data: str) -> None:
    found = documents.humaneval(data)["test"]
    assert found["entry_point"] == ["add0", "add1", "add2"]
    assert "canonical_solution" not in found.column_names


def test_truthfulqa(data: str) -> None:
    one, several = documents.truthfulqa_mc1(data)["test"], documents.truthfulqa_mc2(data)["test"]
    assert one[0]["choices"] == ["0 is.", "No.", "Never."]
    assert (one[0]["labels"], several[0]["labels"]) == ([1, 0, 0], [1, 1, 0])


def test_harmless_is_cut_before_the_last_answers(data: str) -> None:
    found = documents.harmless(data)["test"][1]
    assert found["question"].startswith("Human: Hi 1")
    assert found["question"].endswith("Go on\n\nAssistant:")
    assert found["choices"] == ["Gladly.", "Go away."]


def test_personas_are_named_by_their_files(data: str) -> None:
    assert "persona:sober" in available_tasks(data)
    assert documents.persona(data, "sober")["test"][0]["choices"] == ["Yes", "No"]
    with pytest.raises(HarnessError, match="persona:NAME"):
        documents.persona(data)


@pytest.mark.parametrize(
    "read", [documents.gsm8k, documents.humaneval, documents.mbpp, documents.truthfulqa_mc1]
)
def test_missing_data_says_what_belongs_where(read: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"data=FOLDER"):
        read()
    with pytest.raises(HarnessError, match=r"is missing[\s\S]*raw/"):
        read(str(tmp_path))
    with pytest.raises(HarnessError, match="no such folder"):
        read(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no line"),
        ("{", "line 1"),
        ("\n[]\n", "line 2: list"),
        ('{"question": "a"}', "row 1"),
    ],
)
def test_damaged_data_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "gsm8k").mkdir()
    for split in ("test", "train"):
        (tmp_path / f"gsm8k/{split}.jsonl").write_text(text)
    with pytest.raises(HarnessError, match=message):
        documents.gsm8k(str(tmp_path))


def test_an_empty_answer_is_a_damaged_row(tmp_path: Path) -> None:
    folder = tmp_path / "anthropic_evals"
    folder.mkdir()
    row = {"question": "q", "answer_matching_behavior": "", "answer_not_matching_behavior": " No"}
    (folder / "odd.jsonl").write_text(json.dumps(row))
    with pytest.raises(HarnessError, match=r"row 1(.|\n)*an answer is empty"):
        documents.persona(str(tmp_path), "odd")


@pytest.mark.parametrize(
    ("name", "good", "change", "said"),
    [
        ("humaneval/HumanEval", files.HUMANEVAL[0], {"prompt": None}, "'prompt'"),
        ("humaneval/HumanEval", files.HUMANEVAL[0], {"test": "half \ud83d"}, "surrogates"),
        ("mbpp/mbpp", files.MBPP[2], {"test_list": ["a", 1]}, "'tests'"),
        ("mbpp/mbpp", files.MBPP[2], {"task_id": "11"}, "TypeError"),
    ],
)
def test_a_row_that_could_end_a_run_late_is_refused_before_it(
    name: str, good: dict[str, Any], change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / f"{name}.jsonl"
    path.parent.mkdir()
    path.write_text("\n".join(json.dumps(row) for row in (good, good | change)))
    read = documents.mbpp if "mbpp" in name else documents.humaneval
    with pytest.raises(HarnessError, match=rf"row 2[\s\S]*{said}"):
        read(str(tmp_path))


def test_a_question_without_a_true_answer_is_refused(data: str) -> None:
    rows = [{**files.TRUTHFULQA[0], "mc1_targets": {"No.": 0, "Yes.": 0}}]
    (Path(data) / "truthfulqa/mc_task.json").write_text(json.dumps(rows))
    with pytest.raises(HarnessError, match=r"row 1[\s\S]*labelled 1"):
        documents.truthfulqa_mc1(data)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 100_000, "recursion"),
        (b"\xff\xfe", "UnicodeDecodeError"),
        (gzip.compress(b"{}" * 1000, mtime=0)[:-9], "EOFError"),
        (b"no gzip", "BadGzipFile"),
        (b"5", "int"),
        (b"[5]", "list"),
    ],
    ids=["deep", "no UTF-8", "cut gzip", "no gzip", "a number", "a list"],
)
@pytest.mark.parametrize("name", ["mbpp/mbpp.jsonl", "truthfulqa/mc_task.json"])
def test_files_that_cannot_be_read_are_named(
    tmp_path: Path, content: bytes, said: str, name: str
) -> None:
    path = tmp_path / (name + (".gz" if "EOF" in said or "Bad" in said else ""))
    path.parent.mkdir()
    path.write_bytes(content)
    read = documents.mbpp if "mbpp" in name else documents.truthfulqa_mc1
    with pytest.raises(HarnessError, match=rf"cannot be read[\s\S]*{said}"):
        read(str(tmp_path))
