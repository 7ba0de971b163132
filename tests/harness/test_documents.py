"""Published files become documents through the task files; what is missing or damaged is named."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from steer.harness import HarnessError, available_tasks
from steer.harness._load import tasks_of
from tests.harness import files

SHIPPED = [name for name in available_tasks() if not name.startswith("persona:")]


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(files.write(tmp_path))


def read(task: str, data: str | None) -> Any:
    """Return the splits of a task that ships."""
    (found,) = tasks_of(task, data)
    return found.dataset


def test_gsm8k_loses_the_calculators_notes(data: str) -> None:
    found = read("gsm8k", data)
    assert [len(found[split]) for split in ("test", "train")] == [4, 6]
    assert found["test"][0]["answer"] == "3 pens\n#### 3"
    assert found["test"][0]["number"] == "3"


def test_mbpp_takes_the_test_problems(data: str) -> None:
    assert read("mbpp", data)["test"]["task_id"] == [11, 12]


def test_humaneval_does_not_carry_the_solution(data: str) -> None:
    found = read("humaneval", data)["test"]
    assert [text.rpartition("\n")[2] for text in found["after"]] == [
        f"check(add{n})" for n in range(3)
    ]
    assert not any("return x" in text for row in found for text in row.values())


def test_truthfulqa(data: str) -> None:
    one, several = (read(f"truthfulqa_{name}", data)["test"] for name in ("mc1", "mc2"))
    assert one[0]["choices"] == ["0 is.", "No.", "Never."]
    assert (one[0]["labels"], several[0]["labels"]) == ([1, 0, 0], [1, 1, 0])


def test_harmless_is_cut_before_the_last_answers(data: str) -> None:
    found = read("harmless", data)["test"][1]
    assert found["question"].startswith("Human: Hi 1")
    assert found["question"].endswith("Go on\n\nAssistant:")
    assert found["choices"] == ["Gladly.", "Go away."]


def test_personas_are_named_by_their_files(data: str) -> None:
    assert "persona:sober" in available_tasks(data)
    assert read("persona:sober", data)["test"][0]["choices"] == ["Yes", "No"]
    with pytest.raises(HarnessError, match=r"no such task[\s\S]*persona:sober"):
        read("persona:", data)


@pytest.mark.parametrize("task", SHIPPED)
def test_missing_data_says_what_belongs_where(task: str, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"data=FOLDER"):
        read(task, None)
    with pytest.raises(HarnessError, match=r"is missing[\s\S]*raw/"):
        read(task, str(tmp_path))
    with pytest.raises(HarnessError, match="no such folder"):
        read(task, str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("\n[]\n", "cannot be read"),
        ('{"question": "a"}', "row 1"),
    ],
)
def test_damaged_data_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "gsm8k").mkdir()
    for split in ("test", "train"):
        (tmp_path / f"gsm8k/{split}.jsonl").write_text(text)
    with pytest.raises(HarnessError, match=message):
        read("gsm8k", str(tmp_path))


def test_an_empty_answer_is_a_damaged_row(tmp_path: Path) -> None:
    folder = tmp_path / "anthropic_evals"
    folder.mkdir()
    row = {"question": "q", "answer_matching_behavior": "", "answer_not_matching_behavior": " No"}
    (folder / "odd.jsonl").write_text(json.dumps(row))
    with pytest.raises(HarnessError, match=r"row 1(.|\n)*an answer is empty"):
        read("persona:odd", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "good", "change", "said"),
    [
        ("humaneval/HumanEval", files.HUMANEVAL[0], {"prompt": None}, r"row 2[\s\S]*'prompt'"),
        ("humaneval/HumanEval", files.HUMANEVAL[0], {"test": "half \ud83d"}, "surrogate"),
        ("mbpp/mbpp", files.MBPP[2], {"test_list": ["a", 1]}, r"cannot be read|row 2"),
        ("mbpp/mbpp", files.MBPP[2], {"task_id": "x"}, r"cannot be read|row 2"),
    ],
)
def test_a_row_that_could_end_a_run_late_is_refused_before_it(
    name: str, good: dict[str, Any], change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / f"{name}.jsonl"
    path.parent.mkdir()
    path.write_text("\n".join(json.dumps(row) for row in (good, good | change)))
    with pytest.raises(HarnessError, match=said):
        read(path.parent.name, str(tmp_path))


def test_a_question_without_a_true_answer_is_refused(data: str) -> None:
    rows = [{**files.TRUTHFULQA[0], "mc1_targets": {"No.": 0, "Yes.": 0}}]
    (Path(data) / "truthfulqa/mc_task.json").write_text(json.dumps(rows))
    with pytest.raises(HarnessError, match=r"row 1[\s\S]*labelled 1"):
        read("truthfulqa_mc1", data)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b"\xff\xfe",
        gzip.compress(b"{}" * 1000, mtime=0)[:-9],
        b"no gzip",
        b"5",
        b"[5]",
    ],
    ids=["deep", "no UTF-8", "cut gzip", "no gzip", "a number", "a list"],
)
@pytest.mark.parametrize("name", ["mbpp/mbpp.jsonl", "truthfulqa/mc_task.json"])
def test_files_that_cannot_be_read_are_named(
    tmp_path: Path, content: bytes, name: str, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / (name + (".gz" if "gzip" in request.node.callspec.id else ""))
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(HarnessError, match=r"cannot be read|of the published shape"):
        read("mbpp" if "mbpp" in name else "truthfulqa_mc1", str(tmp_path))


def test_data_is_read_anew_and_no_copy_is_kept(
    data: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
    first = read("persona:sober", data)["test"]
    path = Path(data) / "anthropic_evals/sober.jsonl"
    path.write_text(path.read_text().replace("tea", "gin"))
    assert "gin" in read("persona:sober", data)["test"][0]["question"]
    assert "tea" in first[0]["question"]
    assert not list(cache.iterdir())
