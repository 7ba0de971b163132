"""Run units of the study: `python -m notebooks.study make|test|sheet|table [--data FOLDER] [names]`.

A unit whose row stands in docs/study is not run again, unless its vector is missing in `--work` and
its behaviour was not tested yet.
"""

import argparse
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch

from notebooks.study import table
from notebooks.study.behaviours import FULL, OTHERS, behaviour
from notebooks.study.blind import sheet
from notebooks.study.final import test
from notebooks.study.make import BRIEF, METHODS, make
from notebooks.study.rows import Row, find, latest, write
from steer.demo import smollm2
from steer.errors import DataWarning


def main() -> None:
    """Run what is asked for and not yet measured."""
    options = _options()
    if options.stage == "table":
        if options.write:
            options.write.write_text(table.with_tables(options.write.read_text()))
        else:
            sys.stdout.write(table.text())
        return
    if options.stage == "sheet":
        for name in options.behaviours:
            sys.stdout.write(sheet(name, behaviour(name, options.data).asked))
        return
    names = options.behaviours or [*FULL, *OTHERS]
    if options.method is None:
        for name in names:
            for method in _methods(options.stage, name, options.methods):
                if not _kept(find(options.stage, behaviour=name, **method), options.work):
                    _unit(options, name, method.get("method", "all"))
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DataWarning)
    own = behaviour(names[0], options.data)
    model = smollm2.load()
    options.work.mkdir(parents=True, exist_ok=True)
    command = f"python -m notebooks.study {options.stage} {own.name}"
    if options.stage == "make":
        row = make(model, own, options.method, options.work, options.seed)
        write("make", {"command": f"{command} --methods {options.method}", **row})
        return
    made = [row for row in latest("make") if row["behaviour"] == own.name]
    for found in list(test(model, own, made, options.work)):
        write("test", {"command": command, **found})


def _kept(row: Row | None, work: Path) -> bool:
    """Return whether a unit was measured, and its vector is there or no longer needed."""
    if row is None:
        return False
    there = "file" not in row or (work / row["file"]).exists()
    return there or find("test", behaviour=row["behaviour"]) is not None


def _methods(stage: str, name: str, wanted: list[str] | None) -> list[dict[str, str]]:
    """Return what tells the units of a behaviour apart: the methods, or one for the test."""
    if stage == "test":
        return [{}]
    return [{"method": m} for m in wanted or (METHODS if name in FULL else BRIEF)]


def _unit(options: argparse.Namespace, name: str, method: str) -> None:
    """Run one unit in a process of its own."""
    command = [sys.executable, "-m", "notebooks.study", options.stage, name, "--method", method]
    command += ["--work", str(options.work), "--seed", str(options.seed)]
    command += ["--data", str(options.data)] if options.data else []
    start = time.monotonic()
    done = subprocess.run(command, check=False)
    sys.stdout.write(
        f"{options.stage} {name} {method}: "
        f"{'done' if not done.returncode else 'FAILED'} in {time.monotonic() - start:.0f} s\n"
    )
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m notebooks.study", description=__doc__)
    parser.add_argument("stage", choices=("make", "test", "sheet", "table"))
    parser.add_argument("behaviours", nargs="*", choices=[*FULL, *OTHERS, []])
    parser.add_argument("--data", type=Path, help="folder of the published data")
    parser.add_argument("--work", type=Path, default=Path("study-work"), help="where vectors are")
    parser.add_argument("--methods", nargs="*", choices=METHODS, help="only these")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="page to put the tables into")
    parser.add_argument("--method", help=argparse.SUPPRESS)  # of one unit, in its own process
    return parser.parse_args()


if __name__ == "__main__":
    main()
