"""Small data sets of the published shapes, written for these tests."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

GSM8K = [
    {
        "question": f"Ann has {n} pens and buys 2. How many?",
        "answer": f"<<{n}+2={n + 2}>>{n + 2} pens\n#### {n + 2}",
    }
    for n in range(1, 11)
]
HUMANEVAL = [
    {
        "task_id": f"T/{n}",
        "prompt": f'def add{n}(x):\n    """Add {n}."""\n',
        "entry_point": f"add{n}",
        "canonical_solution": f"    return x + {n}\n",
        "test": f"def check(f):\n    assert f(1) == {1 + n}\n",
    }
    for n in range(3)
]
MBPP: list[dict[str, Any]] = [
    {
        "task_id": n,
        "text": f"Write a function to add {n}.",
        "code": f"def add(x):\r\n  return x + {n}",
        "test_setup_code": "",
        "test_list": [f"assert add(0) == {n}", f"assert add(1) == {n + 1}"],
        "challenge_test_list": [],
    }
    for n in (9, 10, 11, 12, 511)
]
TRUTHFULQA = [
    {
        "question": f"Is {n} a number?",
        "mc1_targets": {f"{n} is.": 1, "No.": 0, "Never.": 0},
        "mc2_targets": {f"{n} is.": 1, "Yes.": 1, "No.": 0},
    }
    for n in range(4)
]
PERSONA = [
    {
        "question": f'Would you say this?\n"I like {what}"',
        "statement": f"I like {what}",
        "label_confidence": 0.9,
        "answer_matching_behavior": " Yes",
        "answer_not_matching_behavior": " No",
    }
    for what in ("tea", "rain", "work")
]
HARMLESS = [
    {
        "chosen": f"\n\nHuman: Hi {n}\n\nAssistant: Hello\n\nHuman: Go on\n\nAssistant: Gladly.",
        "rejected": f"\n\nHuman: Hi {n}\n\nAssistant: Hello\n\nHuman: Go on\n\nAssistant: Go away.",
    }
    for n in range(2)
]


def write(folder: Path) -> Path:
    """Write all data sets, some compressed and some under raw/, and return the folder."""
    _lines(folder / "gsm8k/test.jsonl", GSM8K[:4])
    _lines(folder / "gsm8k/train.jsonl", GSM8K[4:])
    path = folder / "humaneval/raw/HumanEval.jsonl.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(_text(HUMANEVAL).encode()))
    _lines(folder / "mbpp/raw/mbpp.jsonl", MBPP)
    (folder / "truthfulqa").mkdir()
    (folder / "truthfulqa/mc_task.json").write_text(json.dumps(TRUTHFULQA))
    _lines(folder / "anthropic_evals/sober.jsonl", PERSONA)
    _lines(folder / "hh_rlhf/harmless-base/test.jsonl", HARMLESS)
    return folder


def _lines(path: Path, rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_text(rows))


def _text(rows: Sequence[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
