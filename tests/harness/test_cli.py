"""`steer eval`."""

import json
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from steer.cli._advice import Command
from steer.cli._eval import evaluate
from steer.demo import vectors_path
from steer.errors import MissingExtraError, SteerError
from steer.harness import HarnessError
from tests.harness import files

VECTOR = f"{vectors_path() / 'medical.safetensors'}:0.5"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(files.write(tmp_path_factory.mktemp("data")))


def run(*arguments: str) -> str:
    """Return what the command prints; raise what it raises."""
    app = typer.Typer()
    app.command(cls=Command)(evaluate)
    result = CliRunner().invoke(app, ["demo", "--no-progress", *arguments])
    if isinstance(result.exception, SteerError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_steered_model_is_scored_and_every_item_written(data: str, tmp_path: Path) -> None:
    out = tmp_path / "results"
    printed = run(
        "-v",
        VECTOR,
        "--tasks",
        "gsm8k,truthfulqa_mc1",
        "--data",
        data,
        "--limit",
        "2",
        "--max-new-tokens",
        "4",
        "--num-fewshot",
        "1",
        "-o",
        str(out),
    )
    assert "medical × 0.5 (add, all)" in printed
    assert f"written: {out}" in printed
    assert len((out / "steered/truthfulqa_mc1.jsonl").read_text().splitlines()) == 2
    saved = json.loads((out / "results.json").read_text())
    assert saved["settings"]["tasks"] == ["gsm8k", "truthfulqa_mc1"]
    assert {row["n"] for row in saved["rows"]} == {2}


def test_scores_as_json_are_one_row_for_each_metric(data: str) -> None:
    few = ("--tasks", "truthfulqa_mc1", "--data", data, "--limit", "2", "--no-baseline", "--json")
    app = typer.Typer()
    app.command(cls=Command)(evaluate)
    result = CliRunner().invoke(app, ["demo", "--quiet", "-v", VECTOR, *few])
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    (row,) = [row for row in rows if row["metric"] == "acc"]
    assert (row["task"], row["n"]) == ("truthfulqa_mc1", 2)
    assert row["unsteered"] is None
    assert 0 <= row["steered"] <= 1


def test_tasks_are_listed(data: str) -> None:
    assert run("--tasks", "list").split() == [
        "gsm8k", "harmless", "humaneval", "humaneval_chat", "mbpp", "truthfulqa_mc1",
        "truthfulqa_mc2", "persona:NAME",
    ]  # fmt: skip
    assert "persona:sober" in run("--tasks", "list", "--data", data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "gsm9k"], r"no such task[\s\S]*gsm9k[\s\S]*gsm8k"),
        (["--tasks", "gsm8k"], "--data FOLDER"),
        (["--tasks", "gsm8k", "--data", "/nowhere"], r"no such folder[\s\S]*gsm8k/raw"),
    ],
)
def test_what_is_wrong_is_said(arguments: list[str], message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        run(*arguments)


def test_programs_run_only_if_asked_for(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--tasks", "humaneval", "--data", data, "--limit", "1", "--max-new-tokens", "2"]
    with pytest.raises(HarnessError, match="--allow-code-execution"):
        run(*arguments)
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    with pytest.raises(MissingExtraError, match="inspect"):
        run(*arguments, "--allow-code-execution")
