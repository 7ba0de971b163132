"""No result is lost to one bad item: whatever a model, a program, a judge or a function returns."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import steer
from steer import view
from steer.errors import ArgumentError, JudgeError, SelectionError
from steer.harness import HarnessResult
from steer.measure import ModelJudge, Setting, Sweep, Verdict, judge_answers, sweep
from steer.report import Report
from tests.harness import files
from tests.harness.test_run import answered, run
from tests.tiny import tiny_model, tiny_tokenizer

SCORE = {"acc,none": 0.5, "acc_stderr,none": 0.1, "sample_len": 3}
HALF = "half \ud83d of a pair"


class SilentError(Exception):
    """An error whose message cannot be read."""

    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__


def deep(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


def cyclic() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.fixture(scope="module")
def lm() -> steer.Model:
    return steer.Model(tiny_model("llama"), tiny_tokenizer())


@pytest.fixture(scope="module")
def vector() -> steer.Vector:
    return steer.Vector.of({1: torch.ones(32)})


def result_of(items: dict[str, list[dict[str, Any]]], **settings: Any) -> HarnessResult:
    scores = dict.fromkeys(items, SCORE)
    return HarnessResult(
        {"unsteered": scores}, {"unsteered": items}, {"composition": "a"} | settings
    )


def saved(folder: Path, name: str = "task") -> list[Any]:
    text = (folder / "unsteered" / f"{name}.jsonl").read_bytes().decode()
    return [json.loads(line) for line in text.split("\n") if line]


@pytest.mark.parametrize(
    ("bad", "kept"),
    [
        (HALF, HALF),
        ("\x00\x1b[31m\u2028\n", "\x00\x1b[31m\u2028\n"),
        (math.nan, None),
        (-math.inf, None),
        (2**70, 2**70),
        (b"\xff", "b'\\xff'"),
        ({HALF: 1, 2: 3}, {HALF: 1, "2": 3}),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.array([[1.0, math.nan]]), [[1.0, None]]),
        (torch.tensor(2.0), 2.0),
        ((1, {2}), [1, "{2}"]),
    ],
)
def test_whatever_an_item_holds_is_saved_beside_the_others(
    bad: object, kept: object, tmp_path: Path
) -> None:
    items = [{"doc_id": 0, "acc": 1.0}, {"doc_id": 1, "acc": 0.0, "resps": bad}]
    folder = result_of({"task": items}, note=bad).save(tmp_path)
    assert saved(folder) == [items[0], {"doc_id": 1, "acc": 0.0, "resps": kept}]
    whole = json.loads((folder / "results.json").read_bytes().decode())
    assert whole["settings"]["note"] == kept
    assert whole["rows"][0]["unsteered"] == 0.5


@pytest.mark.parametrize(
    ("bad", "mark"),
    [
        (10**5000, hex(10**5000)),
        (deep(100_000), "nested too deeply"),
        (cyclic(), "nested too deeply"),
        (SilentError(), "SilentError"),
        ({SilentError(): 1}, "SilentError"),
    ],
    ids=["huge", "deep", "cyclic", "silent", "silent key"],
)
def test_what_json_cannot_hold_leaves_a_mark(bad: object, mark: str, tmp_path: Path) -> None:
    items = [{"doc_id": 0}, {"doc_id": 1, "resps": bad}, {"doc_id": 2}]
    first, marked, last = saved(result_of({"task": items}).save(tmp_path))
    assert (first, marked["doc_id"], last) == (items[0], 1, items[2])
    assert mark in json.dumps(marked)


def test_tasks_whose_names_look_alike_or_are_long_have_files_of_their_own(tmp_path: Path) -> None:
    names = ["a/b", "a_b", "A_B", "ü" * 300, "ü" * 300 + "2", "..", HALF]
    items = {name: [{"doc_id": k}] for k, name in enumerate(names)}
    folder = result_of(items).save(tmp_path)
    found = [json.loads(p.read_text())["doc_id"] for p in (folder / "unsteered").iterdir()]
    assert sorted(found) == list(range(len(names)))
    listed = json.loads((folder / "results.json").read_bytes().decode())["files"]["unsteered"]
    assert [json.loads((folder / listed[name]).read_text())["doc_id"] for name in names] == list(
        range(len(names))
    )


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, 1e200, 10**400], ids=["nan", "inf", "1e200", "huge"]
)
def test_a_number_out_of_range_leaves_a_table(value: float, tmp_path: Path) -> None:
    items = [{"doc_id": k, "filter": "none", "acc": 0.0} for k in range(3)]
    steered = [*items[:2], {**items[2], "acc": value}]
    result = HarnessResult(
        {"unsteered": {"task": SCORE}, "steered": {"task": SCORE}},
        {"unsteered": {"task": items}, "steered": {"task": steered}},
        {"composition": "a"},
    )
    (row,) = result.rows
    assert not math.isfinite(row["change_stderr"])
    assert "task" in repr(result)
    result.save(tmp_path)


def test_a_pair_without_a_number_is_not_left_out_of_the_error() -> None:
    items = [{"doc_id": k, "filter": "none", "acc": float(k)} for k in range(3)]
    steered = [*items[:2], {**items[2], "acc": None}]  # what NaN is once it is plain
    result = HarnessResult(
        {"unsteered": {"task": SCORE}, "steered": {"task": SCORE}},
        {"unsteered": {"task": items}, "steered": {"task": steered}},
        {"composition": "a"},
    )
    assert math.isnan(result.rows[0]["change_stderr"])


def test_texts_and_programs_of_a_model_with_half_a_character_are_saved(
    lm: steer.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = files.write(tmp_path / "data")
    verdicts = [
        {"outcome": "failed", "error": f"ValueError: {HALF}"},
        {"outcome": "passed", "error": ""},
        {"outcome": "failed", "error": "UnicodeEncodeError"},
    ]
    monkeypatch.setattr("steer.harness._programs.run_programs", lambda programs: verdicts)
    monkeypatch.setattr("steer.harness._load.check_sandbox", lambda tasks: None)
    answered(monkeypatch, ["    raise\n", "    return 1\n", f"    return '{HALF}'\n"])
    result = run(lm, None, ["humaneval"], data, allow_code_execution=True)
    folder = result.save(tmp_path / "out")
    first, second, third = saved(folder, "humaneval")
    assert first["filtered_resps"][0][0]["error"] == f"ValueError: {HALF}"
    assert second["filtered_resps"][0][0]["outcome"] == "passed"
    assert HALF in third["filtered_resps"][0][0]["program"]
    assert result.rows[0]["unsteered"] == pytest.approx(1 / 3)
    assert [first, second, third] == list(result.items["unsteered"]["humaneval"])


@pytest.mark.parametrize(
    "bad",
    [10**400, math.nan, math.inf, b"yes", ["yes"], True, 1j],
    ids=["huge", "nan", "inf", "bytes", "list", "bool", "complex"],
)
@pytest.mark.parametrize("good", ["yes", 1.0])
def test_one_verdict_that_is_none_costs_no_other(bad: object, good: str | float) -> None:
    def judge(_: object, answer: str) -> Any:
        return bad if answer == "bad" else good

    found = judge_answers(judge, ["p"] * 3, ["a", "bad", "c"])
    assert [v.label for v in found.verdicts] == [good, None, good]
    assert found.failed == 1
    with pytest.raises(JudgeError, match="1 of 3"):
        found.check_complete()
    assert "not judged" in repr(found)
    whole = found.again(lambda *_: good)
    assert (whole.failed, whole.verdicts[1].label) == (0, good)


def test_a_judge_whose_error_cannot_be_read_costs_no_other() -> None:
    def judge(_: object, answer: str) -> Any:
        if answer == "raises":
            raise SilentError
        if answer == "error":
            return Verdict(None, error=ValueError("as an error"))  # type: ignore[arg-type]
        return Verdict(None, reply=b"\xff") if answer == "reply" else "fine"  # type: ignore[arg-type]

    found = judge_answers(judge, ["p"] * 4, ["raises", "error", "reply", "fine"])
    assert [bool(v.error) for v in found.verdicts] == [True, True, False, False]
    assert "as an error" in str(found.verdicts[1].error)
    assert found.verdicts[2].reply == "b'\\xff'"
    assert "not judged" in repr(found)


def test_a_question_that_cannot_be_rendered_costs_a_judging_model_no_other(lm: steer.Model) -> None:
    judge = ModelJudge(lm, "Is {answer} kind?", ["yes", "no"])
    alone = [judge("p", text) for text in ("fine", "good")]
    found = judge_answers(judge, ["p"] * 3, ["fine", HALF, "good"])
    assert [found.verdicts[k].label for k in (0, 2)] == [v.label for v in alone]
    assert "half of a surrogate pair" in str(found.verdicts[1].error)


def test_an_answer_that_is_no_text_is_refused_before_any_is_judged(lm: steer.Model) -> None:
    asked: list[str] = []
    with pytest.raises(ArgumentError, match=r"answer 1(.|\n)*NoneType"):
        judge_answers(lambda p, a: asked.append(a), ["p", "p"], ["a", None])  # type: ignore[list-item]
    assert not asked


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (10**400, math.nan),
        (-(10**400), math.nan),
        (math.inf, math.nan),
        (2**64, 2.0**64),
        (np.float32(1.5), 1.5),
    ],
    ids=["huge", "-huge", "inf", "64 bits", "numpy"],
)
def test_a_number_of_a_function_that_is_too_large_ends_no_sweep(
    value: Any, kept: float, lm: steer.Model, vector: steer.Vector, tmp_path: Path
) -> None:
    pairs = steer.Pairs.of([steer.Pair("who", "no", "yes")])
    for _ in range(2):  # measured, and read from the file
        found = sweep(
            lm,
            vector,
            pairs,
            [0.0, 1.0],
            measure=_Large.of(value),
            save=tmp_path / "sweep.jsonl",
            progress=False,
        )
        assert [row["x"] for row in found.rows] == pytest.approx([kept] * 2, nan_ok=True)


class _Large:
    value: Any = None

    @classmethod
    def of(cls, value: Any) -> Callable[[steer.Model, Any], dict[str, float]]:
        cls.value = value
        return measured


def measured(lm: steer.Model, data: Any) -> dict[str, float]:
    return {"x": _Large.value}


def half_named(lm: steer.Model, data: Any) -> dict[str, float]:
    return {HALF: 1.0}


def test_a_name_that_cannot_be_saved_is_refused_by_name(
    lm: steer.Model, vector: steer.Vector, tmp_path: Path
) -> None:
    pairs = steer.Pairs.of([steer.Pair("who", "no", "yes")])
    with pytest.raises(SelectionError, match="cannot be kept"):
        sweep(
            lm,
            vector,
            pairs,
            [0.0],
            measure=half_named,
            save=tmp_path / "s.jsonl",
            progress=False,
        )


def test_results_with_half_a_character_are_shown_and_exported(tmp_path: Path) -> None:
    answers = [f"{HALF}\x00", "b"]
    judged = judge_answers(lambda p, a: a, ["p", "p"], answers, wanted=answers)
    swept = Sweep(
        (HALF,),
        (Setting(None, None, (0.0,)),),
        ({HALF: {"accuracy": 1.0}},),
        "preference",
        "mean",
        "",
        "mark",
    )
    for result in (judged, swept, view.dose_response(swept)):
        assert result._repr_html_().encode()
        assert repr(result).encode()
    for table in (judged, swept):
        table.to_pandas().to_csv(tmp_path / "table.csv")
        assert "\\ud83d" in (tmp_path / "table.csv").read_text()
    Report.of(judged, swept, title=HALF).save(tmp_path / "report.html")
    assert "\ufffd" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("text", [HALF, "\x1b[31mred", "über ═ 🙂"])
def test_generated_text_is_printed_whatever_the_terminal_takes(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import io

    from steer import cli

    for encoding in ("ascii", "utf-8"):
        written = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
        monkeypatch.setattr(sys, "argv", ["steer", "generate", "demo", "hello"])
        monkeypatch.setattr(steer.Model, "generate", lambda *_, **__: [text])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        sys.stdout.flush()
        assert ended.value.code == 0
        shown = written.getvalue().decode(encoding)
        assert "\x1b" not in shown
        wanted = text if encoding == "utf-8" and text.isprintable() else text[:1].strip("\x1bü")
        assert wanted in shown
        if text == HALF:
            assert "\\ud83d" in shown
