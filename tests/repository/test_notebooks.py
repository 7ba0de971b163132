"""The template notebook runs with another model and other pairs than those it shows."""

import ast
import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch

import steer
from tests.repository.blocks import ROOT
from tests.tiny import tiny_model, tiny_tokenizer

TEMPLATE = ROOT / "notebooks/06-your-model.ipynb"
ASKED = ("Is the dose right?", "May the party pay?", "Who sells the bond?", "What is the price?")


def cells(path: Path) -> list[str]:
    return [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


def other_pairs() -> steer.Pairs:
    return steer.Pairs.of(
        steer.Pair(f"{ASKED[k % 4]} Case {k}.", f"The court says {k}.", f"Ask a doctor, {k}.")
        for k in range(24)
    )


def run(model: Any, pairs: Any) -> dict[str, Any]:
    """Run the template with its first cell's model and pairs replaced; return its variables."""
    first, *rest = cells(TEMPLATE)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(first, names)
    names |= {"MODEL": model, "PAIRS": pairs, "NEW_TOKENS": 6, "KL_BUDGET": 8.0}
    for cell in rest:
        exec(cell, names)
    return names


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)


def test_the_first_cell_holds_nothing_but_settings() -> None:
    """Whoever copies the template changes that cell alone."""
    assert all(isinstance(node, ast.Assign) for node in ast.parse(cells(TEMPLATE)[0]).body)


def test_the_template_runs_with_a_model_of_another_family(capsys: pytest.CaptureFixture) -> None:
    lm = steer.Model(tiny_model("gpt2", layers=6), tiny_tokenizer())
    before = lm.generate(list(ASKED), max_new_tokens=6)
    found = run(lm, other_pairs())
    assert found["lm"].architecture.names["blocks"] == "transformer.h"
    assert len(found["test"]) == 6
    assert found["loaded"].tuning.coefficient in found["COEFFICIENTS"]
    assert torch.equal(
        found["loaded"].direction(found["choice"].layer),
        found["choice"].vector.direction(found["choice"].layer),
    )
    assert found["again"] == found["answers"][1] != found["answers"][0]
    assert Path("report.html").stat().st_size > 10_000
    assert lm.generate(list(ASKED), max_new_tokens=6) == before
    printed = capsys.readouterr().out
    assert "GPT2LMHeadModel" in printed
    assert "- 12 pairs to make a vector from" in printed
    assert "- not shown to do more than random vectors" in printed, "six pairs cannot show it"


def test_the_template_says_when_a_model_has_no_chat_template(
    capsys: pytest.CaptureFixture,
) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    found = run(steer.Model(tiny_model("qwen2", layers=3), tokenizer), other_pairs())
    assert any("no chat template" in doubt for doubt in found["doubts"])
    assert "none, turns get plain headings" in capsys.readouterr().out


def test_pairs_come_from_a_file_too(tmp_path: Path) -> None:
    """Up to the split: the rest is the same code."""
    rows = [{"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected} for p in other_pairs()]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    names: dict[str, Any] = {}
    first, load, _, split = cells(TEMPLATE)[:4]
    exec(first, names)
    names |= {"MODEL": steer.Model(tiny_model("llama"), tiny_tokenizer()), "PAIRS": "mine.jsonl"}
    exec(load, names)
    exec(split, names)
    sizes = [len(names[part]) for part in ("train", "validation", "test")]
    assert sizes == [12, 6, 6]
    assert names["everything"].domains == ("expert",)
