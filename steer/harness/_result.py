"""The result of a harness: a row for each task and metric, with every item behind it."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import torch

from steer.errors import HarnessError
from steer.show import Result, Row
from steer.show._json import json_line
from steer.store import folder_made, write_bytes

Condition = Literal["unsteered", "steered"]
_CONDITIONS: tuple[Condition, ...] = ("unsteered", "steered")
_LONG = 60  # characters of a file name


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class HarnessResult(Result):
    """Scores of a steered model beside those of the same model unsteered.

    Args:
        scores: For each condition that was run, `unsteered` and `steered`, the metrics of each task
            as lm-eval returns them.
        items: For each condition and task one entry per document: the document, the requests, the
            responses and what each was worth.
        settings: What was run: composition, limits, seed, versions.
    """

    scores: Mapping[Condition, Mapping[str, Mapping[str, Any]]]
    items: Mapping[Condition, Mapping[str, Sequence[Row]]]
    settings: Mapping[str, Any]

    @property
    def title(self) -> str:
        """What stands above the rows."""
        return f"{' and '.join(self.scores)}: {self.settings['composition']}"

    @property
    def rows(self) -> list[Row]:
        """One row per task and metric.

        `task`, `metric`, `filter` (what was done to the responses before), `n`, the value under
        each condition with its standard error, and the `change` (steered less unsteered) with the
        standard error of the mean of the items' differences; None where a condition was not run.
        """
        found: dict[tuple[str, str, str], Row] = {}
        for condition, tasks in self.scores.items():
            for task, metrics in tasks.items():
                for name, value in metrics.items():
                    metric, comma, filtered = name.partition(",")
                    if not comma or metric.endswith("_stderr") or isinstance(value, str):
                        continue
                    key = task, metric, filtered
                    row = found.setdefault(key, _row(*key, metrics["sample_len"]))
                    row[condition] = _number(value)
                    row[f"{condition}_stderr"] = _number(metrics.get(f"{metric}_stderr,{filtered}"))
        for row in found.values():
            if None not in (row["steered"], row["unsteered"]):
                row["change"] = row["steered"] - row["unsteered"]
                row["change_stderr"] = self._paired(row)
        return list(found.values())

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
        files: dict[str, dict[str, str]] = {}
        for condition, tasks in self.items.items():
            files[condition] = {t: f"{condition}/{n}" for t, n in _file_names(tasks).items()}
            for task, items in tasks.items():
                _write(folder / files[condition][task], "".join(map(json_line, items)))
        written = {"settings": self.settings, "rows": self.rows, "files": files}
        _write(folder / "results.json", json_line(written, indent=1))
        return folder

    def _paired(self, row: Row) -> float | None:
        """Return the standard error of the mean difference between the same items.

        NaN where an item's number is not finite: to leave it out would make the error too small.
        """
        before, after = (
            {
                item["doc_id"]: _number(item[row["metric"]])
                for item in self.items[condition][row["task"]]
                if item["filter"] == row["filter"] and row["metric"] in item
            }
            for condition in _CONDITIONS
        )
        differences = [after[k] - before[k] for k in after if k in before]
        n = len(differences)
        if n < 2:
            return math.nan if n else None
        return float(torch.tensor(differences, dtype=torch.float64).std()) / math.sqrt(n)


def _row(task: str, metric: str, filtered: str, n: int) -> Row:
    names = [f"{name}{end}" for name in (*_CONDITIONS, "change") for end in ("", "_stderr")]
    return {"task": task, "metric": metric, "filter": filtered, "n": n, **dict.fromkeys(names)}


def _number(value: Any) -> float:
    """Return a metric as a float, NaN where it is no number or too large for one."""
    try:
        return float(value) if isinstance(value, Real) else math.nan
    except OverflowError:
        return math.nan


def _file_names(tasks: Iterable[str]) -> dict[str, str]:
    """Return the file name of each task, no two alike, also where case does not count."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for task in tasks:
        name = re.sub(r"[^\w.-]", "_", task)[:_LONG]
        while name.casefold() in taken:
            name += "_"
        taken.add(name.casefold())
        found[task] = f"{name}.jsonl"
    return found


def _write(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8", "backslashreplace"), HarnessError, parents=True)
