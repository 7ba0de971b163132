"""Rows of results: one JSON object per line, appended as each unit ends, never changed."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from steer.demo import smollm2

FOLDER = Path(__file__).parents[2] / "docs" / "study"

Row = Mapping[str, Any]


def rows(stage: str) -> list[Row]:
    """Return the rows of a stage, in the order in which they were measured."""
    return list(_read(FOLDER / f"{stage}.jsonl"))


def latest(stage: str) -> list[Row]:
    """Return the last row of each behaviour and method, in the order of the first ones."""
    found = {(row["behaviour"], row["method"]): row for row in rows(stage)}
    return list(found.values())


def find(stage: str, **values: Any) -> Row | None:
    """Return the row of a stage that has the given values, if it was measured."""
    found = [row for row in rows(stage) if all(row[name] == v for name, v in values.items())]
    return found[-1] if found else None


def write(stage: str, row: Row) -> None:
    """Append a row, with the commit and the model file that it holds for."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    whole = {"commit": _commit(), "model_sha256": smollm2.GGUF_SHA256, **row}
    with (FOLDER / f"{stage}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(whole, ensure_ascii=False) + "\n")


def _read(path: Path) -> Iterator[Row]:
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def _commit() -> str:
    command = ["git", "-C", str(FOLDER.parents[1]), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
