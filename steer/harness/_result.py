"""The result of a harness: scores by task, with every item behind them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import torch

from steer.errors import HarnessError
from steer.harness._written import file_names, json_bytes
from steer.show import Result, Row
from steer.store import folder_made, write_bytes

Condition = Literal["unsteered", "steered"]


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one task.

    Args:
        task: The task's name.
        metric: The metric's name.
        filter: What was done to the responses before; lm-eval's name for it.
        value: The metric over all items.
        stderr: Its standard error over items; NaN where lm-eval knows none.
        n: Items it was taken over.
        higher_is_better: Whether more is better, None where the task does not say.
    """

    task: str
    metric: str
    filter: str
    value: float
    stderr: float
    n: int
    higher_is_better: bool | None

    @property
    def key(self) -> tuple[str, str, str]:
        """Task, metric and filter."""
        return self.task, self.metric, self.filter


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class HarnessResult(Result):
    """Scores of a steered model beside those of the same model unsteered.

    Args:
        scores: Scores under each condition that was run: `unsteered`, `steered`.
        items: For each condition and task one entry per document: the document, the requests, the
            responses and what each was worth.
        settings: What was run: composition, limits, seed, versions.
    """

    scores: Mapping[Condition, Sequence[Score]]
    items: Mapping[Condition, Mapping[str, Sequence[Row]]]
    settings: Mapping[str, Any]

    @property
    def title(self) -> str:
        """What stands above the rows."""
        return f"{' and '.join(self.scores)}: {self.settings['composition']}"

    @property
    def rows(self) -> list[Row]:
        """One row per task and metric.

        `task`, `metric`, `filter`, `n`, the value under each condition with its standard error,
        and the `change` (steered less unsteered) with the standard error of the mean of the items'
        differences; None where a condition was not run.
        """
        by_key = {name: {s.key: s for s in scores} for name, scores in self.scores.items()}
        keys = dict.fromkeys(key for scores in by_key.values() for key in scores)
        return [self._row(key, {n: found.get(key) for n, found in by_key.items()}) for key in keys]

    def score(self, task: str, metric: str, condition: Condition = "steered") -> Score:
        """Return one score.

        Args:
            task: The task.
            metric: The metric.
            condition: `steered` or `unsteered`.

        Raises:
            HarnessError: There is none.
        """
        found = self.scores.get(condition, ())
        for one in found:
            if (one.task, one.metric) == (task, metric):
                return one
        raise HarnessError(
            "there is no such score",
            found=f"{task}, {metric}, {condition}",
            expected=" | ".join(f"{s.task}, {s.metric}, {c}" for c in self.scores for s in found)
            or f"one of {', '.join(self.scores)}",
            do="look at result.rows",
        )

    def save(self, folder: str | Path) -> Path:
        """Write the items as `CONDITION/TASK.jsonl` and then `results.json`, each file atomically.

        Numbers that are not finite are written as null. What JSON cannot hold is written as text,
        so that no value keeps the others from being saved.

        Args:
            folder: Made if it does not exist; files of the same names are replaced.

        Returns:
            The folder.

        Raises:
            HarnessError: The folder or a file cannot be written.
        """
        folder = folder_made(folder, HarnessError)
        names = {condition: file_names(tasks) for condition, tasks in self.items.items()}
        for condition, tasks in self.items.items():
            for task, items in tasks.items():
                path = folder / condition / names[condition][task]
                lines = b"".join(json_bytes(item) for item in items)
                write_bytes(path, lines, HarnessError, parents=True)
        files = {
            condition: {task: f"{condition}/{name}" for task, name in named.items()}
            for condition, named in names.items()
        }
        written = {"settings": self.settings, "rows": self.rows, "files": files}
        write_bytes(folder / "results.json", json_bytes(written, indent=1), HarnessError)
        return folder

    def _row(self, key: tuple[str, str, str], found: Mapping[Condition, Score | None]) -> Row:
        task, metric, filtered = key
        row: Row = {"task": task, "metric": metric, "filter": filtered}
        row["n"] = next(score.n for score in found.values() if score is not None)
        for condition in ("unsteered", "steered"):
            score = found.get(condition)
            row[condition] = None if score is None else score.value
            row[f"{condition}_stderr"] = None if score is None else score.stderr
        steered, unsteered = found.get("steered"), found.get("unsteered")
        row["change"] = row["change_stderr"] = None
        if steered is not None and unsteered is not None:
            row["change"] = steered.value - unsteered.value
            row["change_stderr"] = self._paired(key)
        return row

    def _paired(self, key: tuple[str, str, str]) -> float | None:
        """Return the standard error of the mean difference between the same items.

        NaN where an item's number is not finite: to leave it out would make the error too small.
        """
        task, metric, filtered = key
        before, after = (
            {
                item["doc_id"]: number_of(item[metric])
                for item in self.items[condition][task]
                if item["filter"] == filtered and metric in item
            }
            for condition in ("unsteered", "steered")
        )
        differences = [after[k] - before[k] for k in after if k in before]
        n = len(differences)
        if n < 2:
            return math.nan if n else None
        return float(torch.tensor(differences, dtype=torch.float64).std()) / math.sqrt(n)


def number_of(value: Any) -> float:
    """Return a metric as a float, NaN where it is no number or too large for one."""
    try:
        return float(value) if isinstance(value, Real) else math.nan
    except OverflowError:
        return math.nan
