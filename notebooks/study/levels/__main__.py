"""Run one stage: `python -m notebooks.study.levels make|search|test --data FOLDER [names]`.

What has a row in docs/study/levels.jsonl is not run again.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from notebooks.study.levels import final, vectors
from notebooks.study.levels.attempts import ATTEMPTS, knobs_of
from notebooks.study.levels.data import DOMAINS, domains
from notebooks.study.levels.results import FILE, found, measured, tables_of
from notebooks.study.levels.scores import Setting, Tables, scored
from notebooks.study.levels.search import search
from notebooks.study.rows import write
from steer.demo import smollm2

_NONE: Setting = {}


def main() -> None:
    """Run what is asked for and not yet measured."""
    options = _options()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    STAGES[options.stage](options)


def _make(options: argparse.Namespace) -> None:
    known, model = domains(options.data), smollm2.load()
    for kind in options.names or [*vectors.KINDS, vectors.READING]:
        if kind == vectors.READING:
            if not found(stage="make", kind=kind):
                row = vectors.make_reading(model, known, options.work)
                _write(options, kind, stage="make", kind=kind, domain="all", **row)
            continue
        for domain in DOMAINS:
            unit = {"stage": "make", "kind": kind, "domain": domain}
            if not found(**unit):
                row = vectors.make(model, known, kind, domain, options.work, options.seed)
                _write(options, kind, **unit, **row)


def _search(options: argparse.Namespace) -> None:
    known, model = domains(options.data), smollm2.load()
    parts = {name: own.search for name, own in known.items()}
    for attempt in options.names or ATTEMPTS:
        knobs = knobs_of(attempt, options.work)

        def measure(settings: Sequence[Setting], name: str = attempt) -> Iterator[Tables]:
            for setting, tables, seconds in scored(
                model, parts, knobs_of(name, options.work), settings
            ):
                unit = {"stage": "search", "attempt": name, "setting": setting}
                _write(options, name, **unit, scores=_plain(tables), cpu_seconds=seconds)
                yield tables

        search(knobs.domains, measured(attempt), measure)


def _test(options: argparse.Namespace) -> None:
    known, model = domains(options.data), smollm2.load()
    if not found(stage="test", attempt="unsteered"):
        row = final.unsteered(model, known)
        row["scores"] = _plain(row["scores"])
        _write(options, "unsteered", stage="test", attempt="unsteered", **row)
    base = tables_of(found(stage="test", attempt="unsteered")[-1])
    for attempt in options.names or [*ATTEMPTS, "prompt"]:
        knobs, settings = None, dict.fromkeys(final.LATIN, _NONE)
        if attempt != "prompt":
            knobs = knobs_of(attempt, options.work)
            settings = final.chosen(measured(attempt), knobs.domains)
        done = [tuple(row["wanted"]) for row in found(stage="test", attempt=attempt)]
        left = {wanted: setting for wanted, setting in settings.items() if wanted not in done}
        for row in final.combinations(model, known, base, knobs, left):
            row["scores"] = _plain(row["scores"])
            _write(options, attempt, stage="test", attempt=attempt, **row)


def _plain(tables: Tables) -> dict[str, list[list[float]]]:
    return {d: [[round(x, 4) for x in row] for row in t.tolist()] for d, t in tables.items()}


def _write(options: argparse.Namespace, name: str, **row: Any) -> None:
    command = f"python -m notebooks.study.levels {options.stage} {name}"
    write(FILE, {"command": command, **row})
    told = {
        k: row[k] for k in ("domain", "wanted", "setting", "reached", "cpu_seconds") if k in row
    }
    sys.stdout.write(f"{command}: {told}\n")
    sys.stdout.flush()


STAGES = {"make": _make, "search": _search, "test": _test}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m notebooks.study.levels", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("names", nargs="*", help="only these")
    parser.add_argument("--data", type=Path, required=True, help="folder of the published data")
    parser.add_argument("--work", type=Path, default=Path("study-work"), help="where vectors are")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
