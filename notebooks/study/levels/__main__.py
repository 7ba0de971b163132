"""Run one stage: `python -m notebooks.study.levels make --data FOLDER [names]`.

What has a row in docs/study/levels.jsonl is not run again.
"""

import argparse
import sys
from pathlib import Path

import torch

from notebooks.study.levels import vectors
from notebooks.study.levels.data import DOMAINS, domains
from notebooks.study.rows import rows, write
from steer.demo import smollm2

STAGES = ("make",)


def main() -> None:
    """Run what is asked for and not yet measured."""
    options = _options()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    known, model = domains(options.data), smollm2.load()
    for kind in options.names or vectors.KINDS:
        for domain in DOMAINS:
            unit = {"stage": "make", "kind": kind, "domain": domain}
            if not _measured(**unit):
                command = f"python -m notebooks.study.levels make {kind}"
                row = vectors.make(model, known, kind, domain, options.work, options.seed)
                write("levels", {"command": command, **unit, **row})
                sys.stdout.write(f"{kind} {domain}: {row['cpu_seconds']} s\n")
                sys.stdout.flush()


def _measured(**unit: str) -> bool:
    return any(all(row.get(name) == v for name, v in unit.items()) for row in rows("levels"))


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
