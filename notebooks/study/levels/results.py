"""What stands in docs/study/levels.jsonl."""

from typing import Any

import torch

from notebooks.study.levels.scores import Tables
from notebooks.study.levels.search import Measured
from notebooks.study.rows import Row, rows

FILE = "levels"


def found(**values: Any) -> list[Row]:
    """Return the rows with some values."""
    return [row for row in rows(FILE) if all(row.get(name) == v for name, v in values.items())]


def by_attempt(stage: str, by: str = "attempt") -> dict[str, list[Row]]:
    """Return the rows of a stage by attempt, without the unsteered one."""
    known: dict[str, list[Row]] = {}
    for row in found(stage=stage):
        if row[by] != "unsteered":
            known.setdefault(row[by], []).append(row)
    return known


def measured(attempt: str) -> Measured:
    """Return the tables of an attempt's settings, on the search questions."""
    return {
        tuple(row["setting"].values()): tables_of(row)
        for row in found(stage="search", attempt=attempt)
    }


def tables_of(row: Row) -> Tables:
    """Return the tables of a row."""
    return {d: torch.tensor(t, dtype=torch.float64) for d, t in row["scores"].items()}
