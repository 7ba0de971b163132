"""What a harness found: scores by task, with every item behind them."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from steer.errors import HarnessError
from steer.evaluate.table import Row, Tabled
from steer.files import folder_made, write_text

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
class HarnessResult(Tabled):
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

        Args:
            folder: Made if it does not exist; files of the same names are replaced.

        Returns:
            The folder.

        Raises:
            HarnessError: The folder or a file cannot be written.
        """
        folder = folder_made(folder, HarnessError)
        for condition, tasks in self.items.items():
            for task, items in tasks.items():
                name = re.sub(r"[^\w.-]", "_", task)
                lines = (json.dumps(item, ensure_ascii=False) + "\n" for item in items)
                path = folder / condition / f"{name}.jsonl"
                write_text(path, "".join(lines), HarnessError, parents=True)
        written = {"settings": self.settings, "rows": self.rows}
        text = json.dumps(plain(written), indent=1, ensure_ascii=False)
        write_text(folder / "results.json", text + "\n", HarnessError)
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
        """Return the standard error of the mean difference between the same items."""
        task, metric, filtered = key
        values = [
            {
                item["doc_id"]: item[metric]
                for item in self.items[condition][task]
                if item["filter"] == filtered and isinstance(item.get(metric), int | float)
            }
            for condition in ("unsteered", "steered")
        ]
        before, after = values
        differences = [after[k] - before[k] for k in after if k in before]
        n = len(differences)
        if n < 2:
            return math.nan if n else None
        mean = sum(differences) / n
        return math.sqrt(sum((d - mean) ** 2 for d in differences) / (n - 1) / n)


def plain(value: Any) -> Any:
    """Return a value as JSON knows it: numbers, texts, lists and mappings; NaN becomes None.

    Args:
        value: Any value that lm-eval gives.
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "item") and not hasattr(value, "__len__"):
        value = value.item()  # a number of numpy or torch
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)
