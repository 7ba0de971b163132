"""Make the real model's vectors and their cards: `python -m vectors.make_smollm2`."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch

from steer.algebra import Vector
from steer.alignment import alignment_vector, preference_tune
from steer.demo import smollm2
from steer.demo.real.behaviours import BEHAVIOURS, held_out, judge, pairs
from steer.demo.real.claim import measure
from steer.demo.real.subject import KL_BUDGET
from steer.errors import CheckpointError, FileError, VectorFileError
from steer.extract import record
from steer.model import Model
from steer.selection import Limits, Race, Selection, select
from steer.store import folder_made, write_text
from vectors.card import Made, card, index

LAYERS: Final = (14, 16, 18)
RACE: Final = Race(finalists=2, levels=(0.75, 1.0))
TUNED: Final = "cheerful"  # the behaviour that also gets an alignment vector
RANK: Final = 2
STEPS: Final = 24
BATCH: Final = 6
RATE: Final = 1e-3
BETA: Final = 0.5


def make(model: Model, behaviour: str, *, weights: bool = False) -> Made:
    """Record or tune, select, and measure what the setting does to answers.

    Args:
        model: The real model.
        behaviour: One of `BEHAVIOURS`.
        weights: Whether to make an alignment vector in place of a residual one.
    """
    start = time.process_time()
    candidates = (
        tuned(model, behaviour)
        if weights
        else record(
            model, pairs(behaviour), at="response_mean", layers=list(LAYERS), progress=False
        )
    )
    unseen = held_out(behaviour)
    found = select(
        model,
        candidates,
        unseen[:12],
        test=unseen[12:],
        judge=judge(behaviour),
        wanted=behaviour,
        limits=Limits(kl=KL_BUDGET),
        strategy=RACE,
        progress=False,
    )
    claim, answers = measure(model, found.vector, behaviour, found.coefficient)
    vector = claim.stored_with(_described(found))
    name = f"{behaviour}-weights" if weights else behaviour
    return Made(name, vector, found, claim, answers, time.process_time() - start)


def tuned(model: Model, behaviour: str) -> Vector:
    """Return the difference that a LoRA adapter makes, tuned on a behaviour's training pairs.

    Args:
        model: The real model.
        behaviour: One of `BEHAVIOURS`.
    """
    options = {"steps": STEPS, "batch_size": BATCH, "learning_rate": RATE, "beta": BETA}
    with TemporaryDirectory() as folder:
        preference_tune(
            model,
            pairs(behaviour),
            steps=STEPS,
            batch_size=BATCH,
            learning_rate=RATE,
            beta=BETA,
            lora_rank=RANK,
            adapter=folder,
            progress=False,
        )
        vector = alignment_vector(
            model, folder, domain=behaviour, dtype=torch.float16, progress=False
        )
    made = vector.provenance
    aligned = f"LoRA of rank {RANK}, tuned with ipo on {len(pairs(behaviour))} pairs"
    arguments = {**made.arguments, **options, "aligned": aligned, "lora_rank": RANK}
    own = replace(made, arguments=arguments, pairs=len(pairs(behaviour)))
    return replace(vector, provenance=own)


def _described(found: Selection) -> Vector:
    """Return the chosen vector, at the chosen layer alone, with source, model file and licence."""
    vector = found.vector if found.layer is None else found.vector[found.layer]
    made = vector.provenance
    arguments = {
        **made.arguments,
        "model_file_sha256": smollm2.GGUF_SHA256,
        "pairs_source": "steer.demo.real.behaviours, written for this project",
    }
    return replace(vector, provenance=replace(made, arguments=arguments, license="Apache-2.0"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the vectors, and write each beside its card.

    Args:
        arguments: Command-line arguments; those of the process if not given.

    Raises:
        CheckpointError: Another model than the one that the cards name is set, or it cannot be had.
    """
    parser = argparse.ArgumentParser(description="Make the real model's vectors and cards.")
    parser.add_argument("--out", type=Path, default=Path("vectors/smollm2-135m"))
    names = (*BEHAVIOURS, f"{TUNED}-weights")
    parser.add_argument("--only", nargs="*", choices=names, default=names)
    options = parser.parse_args(arguments)
    if os.environ.get(smollm2.OVERRIDE):
        raise CheckpointError(
            "the cards would name a model file that was not used",
            found=f"{smollm2.OVERRIDE} is set",
            expected=f"the file of SHA-256 {smollm2.GGUF_SHA256}",
            do=f"unset {smollm2.OVERRIDE}",
        )
    torch.set_num_threads(1)
    folder_made(options.out, VectorFileError)
    model = smollm2.load()
    for name in options.only:
        made = make(model, name.removesuffix("-weights"), weights=name.endswith("-weights"))
        made.vector.save(options.out / f"{name}.safetensors")
        write_text(options.out / f"{name}.md", card(made), FileError)
        _say(made)
    write_text(options.out / "README.md", index(options.out), FileError)


def _say(made: Made) -> None:
    sys.stdout.write(f"{made.summary}, {made.seconds:.0f} s of CPU time\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
