"""Run a stage: `python -m notebooks.study.matters STAGE [behaviours] [--data FOLDER]`.

A stage that has rows of a behaviour is not run for it again; delete them to repeat it.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

import steer
from notebooks.study.behaviours import FULL, OTHERS, behaviour
from notebooks.study.matters.directions import directions
from notebooks.study.matters.measured import Explored
from notebooks.study.rows import Row, find, write
from steer.demo import smollm2
from steer.errors import DataWarning

STAGES: Mapping[str, Callable[[steer.Model, Explored, int], Iterator[Row]]] = {
    "directions": directions,
}


def main() -> None:
    """Run a stage for the behaviours that it has no rows of."""
    parser = argparse.ArgumentParser(prog="python -m notebooks.study.matters", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("behaviours", nargs="+", choices=[*FULL, *OTHERS])
    parser.add_argument("--data", type=Path, help="folder of the published data")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DataWarning)
    model = smollm2.load()
    for name in options.behaviours:
        if find(options.stage, behaviour=name):
            continue
        command = f"python -m notebooks.study.matters {options.stage} {name}"
        head = {"command": command, "behaviour": name, "seed": options.seed}
        start = time.process_time()
        for row in STAGES[options.stage](
            model, Explored.of(behaviour(name, options.data)), options.seed
        ):
            write(options.stage, {**head, **row})
        sys.stdout.write(f"{options.stage} {name}: {time.process_time() - start:.0f} s\n")


if __name__ == "__main__":
    main()
