"""`python -m tests.bench`: run the figures, print a line for each, fail if one is short."""

import argparse
import sys
from pathlib import Path

import torch
from transformers.utils import logging

from tests.bench import (  # noqa: F401 - each registers its figures
    accuracy,
    choosing,
    families,
    generation,
    importing,
    memory,
    merging,
    recording,
    rows,
    search,
    sweep,
    weights,
)
from tests.bench.lines import Line
from tests.bench.registry import GROUPS, Options
from tests.bench.report import columns, head, say, shown, write_samples

_SAMPLES = Path(__file__).with_name("samples.json")


def main() -> int:
    """Return 0 if no figure is short."""
    arguments = _arguments()
    if arguments.list:
        for name, group in GROUPS.items():
            say(f"{name:<20} {(group.__doc__ or '').splitlines()[0]}")
        return 0
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    say(" · ".join(f"{name} {value}" for name, value in head().items()))
    say("CPU time, methods interleaved round by round; n: rounds (or runs, or values)")
    say()
    say(columns())
    lines: list[Line] = []
    for name in arguments.only or GROUPS:
        for line in GROUPS[name](Options(arguments.quick)):
            lines.append(line)
            say(shown(line))
    if arguments.json is not None:
        write_samples(arguments.json, lines)
    short = [line.name for line in lines if line.status == "short"]
    open_ = [line.name for line in lines if line.status == "unresolved"]
    kept = sum(line.status == "ok" for line in lines)
    say()
    say(f"{kept} ok, {len(short)} short, {len(open_)} unresolved {' '.join([*short, *open_])}")
    return 1 if short else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--list", action="store_true", help="list the groups of figures")
    parser.add_argument("--only", action="append", choices=GROUPS, help="run this group alone")
    parser.add_argument("--quick", action="store_true", help="a rough look: few rounds")
    parser.add_argument(
        "--json", type=Path, nargs="?", const=_SAMPLES, help="write all samples to a file"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
