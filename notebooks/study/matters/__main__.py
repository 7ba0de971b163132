"""Run a stage: `python -m notebooks.study.matters STAGE [behaviours] [--data FOLDER]`.

A stage that has rows of a behaviour is not run for it again; delete them to repeat it.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch

import steer
from notebooks.study.behaviours import FULL, OTHERS, behaviour
from notebooks.study.matters.amounts import pairs, shuffled
from notebooks.study.matters.directions import confirm, directions, words
from notebooks.study.matters.inside import inside
from notebooks.study.matters.measured import Explored
from notebooks.study.matters.others import transfer
from notebooks.study.matters.places import places
from notebooks.study.matters.predicted import predicted
from notebooks.study.matters.strength import dose
from notebooks.study.rows import Row, find, write
from steer.demo import smollm2
from steer.errors import DataWarning

Stage = Callable[[steer.Model, Explored, int], Iterator[Row]]
STAGES: Mapping[str, Stage] = {
    "directions": directions,
    "words": words,
    "confirm": confirm,
    "pairs": pairs,
    "map": places,
    "dose": dose,
    "reliability": predicted,
    "shuffled": shuffled,
}
TOGETHER, BY_FILE = "transfer", "inside"  # of all behaviours at once; with the vector of `make`


def main() -> None:
    """Run a stage for the behaviours that it has no rows of."""
    options = _options()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DataWarning)
    model, stage = smollm2.load(), options.stage
    if stage == TOGETHER:
        among = [Explored.of(behaviour(name, options.data)) for name in options.behaviours]
        _run(options, " ".join(options.behaviours), transfer(model, among, options.seed))
        return
    run = partial(inside, work=options.work) if stage == BY_FILE else STAGES[stage]
    for name in options.behaviours:
        if not find(stage, behaviour=name):
            what = Explored.of(behaviour(name, options.data))
            _run(options, name, run(model, what, options.seed))


def _run(options: argparse.Namespace, names: str, found: Iterator[Row]) -> None:
    """Write the rows of a stage as they come."""
    start = time.process_time()
    command = f"python -m notebooks.study.matters {options.stage} {names}"
    head = {"command": command, "behaviour": names, "seed": options.seed}
    for row in found:
        write(options.stage, {**head, **row})
    sys.stdout.write(f"{options.stage} {names}: {time.process_time() - start:.0f} s\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m notebooks.study.matters", description=__doc__)
    parser.add_argument("stage", choices=(*STAGES, TOGETHER, BY_FILE))
    parser.add_argument("behaviours", nargs="+", choices=[*FULL, *OTHERS])
    parser.add_argument("--data", type=Path, help="folder of the published data")
    parser.add_argument("--work", type=Path, default=Path("study-work"), help="where vectors are")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
