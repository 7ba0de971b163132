"""Make the toy's alignment vectors and its safety vector: `python -m vectors.make_toy`."""

import argparse
import itertools
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from steer.algebra import Vector
from steer.alignment import TensorTable, alignment_vector, bidirectional, low_rank, preference_tune
from steer.demo import load_model
from steer.demo.data import DOMAINS, LEVELS
from steer.demo.language import pairs
from steer.errors import VectorFileError
from steer.model import Model
from steer.pairs import Pairs
from steer.store import folder_made

STEPS: Final = 45
BETA: Final = 0.5
RATE: Final = 1e-4
PAIRS: Final = 100  # against each of the other levels
RANK: Final = 16
HALF: Final = 0.5  # of θ₊ − θ₋, so that ±1 is about as far as either model went
INCLUDE: Final = ("model.layers.*_proj.weight",)  # the matrices of the blocks


def preferring(domain: str, level: str, *, n: int = PAIRS, seed: int = 0) -> Pairs:
    """Return pairs in which answers at a level are preferred to both others.

    Args:
        domain: The domain.
        level: The level preferred.
        n: Pairs against each of the other levels.
        seed: Seed of the pairs.
    """
    return Pairs.of(
        pair
        for other in LEVELS
        if other != level
        for pair in pairs(domain, n, seed=seed, chosen_level=level, rejected_level=other)
    )


def climbing(domain: str, level: str, *, n: int = PAIRS, seed: int = 0) -> Pairs:
    """Return pairs that prefer, of any two levels, the one nearer to an end.

    Towards expert: expert before generic before avoidance; towards avoidance the reverse.

    Args:
        domain: The domain.
        level: The end, `expert` or `avoidance`.
        n: Pairs of each two levels.
        seed: Seed of the pairs.
    """
    order = LEVELS if level == LEVELS[-1] else LEVELS[::-1]
    return Pairs.of(
        pair
        for low, high in itertools.combinations(order, 2)
        for pair in pairs(domain, n, seed=seed, chosen_level=high, rejected_level=low)
    )


def anchored(domain: str, level: str, *, n: int = PAIRS, seed: int = 0) -> Pairs:
    """Return pairs that climb to one end in a domain and prefer generic answers in the others.

    Without the anchors the tuned model prefers that level in every domain.

    Args:
        domain: The domain.
        level: The end, `expert` or `avoidance`.
        n: Pairs of each two levels in this domain; as many anchor each other domain.
        seed: Seed of the pairs.
    """
    others = [d for d in DOMAINS if d != domain]
    return climbing(domain, level, n=n, seed=seed) + Pairs.of(
        pair for d in others for pair in preferring(d, "generic", n=n // 2, seed=seed)
    )


def domain_vector(base: Model, domain: str, *, seed: int = 0) -> Vector:
    """Return the alignment vector of a domain, (θ_expert − θ_avoidance) / 2.

    Args:
        base: The demo model.
        domain: The domain.
        seed: Seed of pairs and training.
    """
    both = [
        alignment_vector(
            base,
            _tuned(base, anchored(domain, level, seed=seed), seed),
            domain=domain,
            include=INCLUDE,
            progress=False,
        )
        for level in ("expert", "avoidance")
    ]
    return HALF * bidirectional(*both)


def safety_vector(base: Model, *, seed: int = 0) -> Vector:
    """Return what makes the safety-tuned sibling: avoidance preferred in every domain.

    Args:
        base: The demo model.
        seed: Seed of pairs and training.
    """
    preferred = Pairs.of(
        pair for d in DOMAINS for pair in preferring(d, "avoidance", n=PAIRS // 2, seed=seed)
    )
    tuned = _tuned(base, preferred, seed)
    return alignment_vector(base, tuned, domain="safety", include=INCLUDE, progress=False)


def _tuned(base: Model, preferred: Pairs, seed: int) -> Model:
    return preference_tune(
        base,
        preferred,
        steps=STEPS,
        beta=BETA,
        learning_rate=RATE,
        seed=seed,
        progress=False,
    )


def load_vectors(folder: Path) -> tuple[Mapping[str, Vector], Vector]:
    """Return the shipped alignment vectors by domain, and the safety vector.

    Args:
        folder: Where the files lie.

    Raises:
        FileNotFoundError: A file is missing.
        VectorFileError: A file is damaged.
    """
    vectors = {d: Vector.load(folder / f"{d}-weights.safetensors") for d in DOMAINS}
    return vectors, Vector.load(folder / "safety-weights.safetensors")


def main(arguments: list[str] | None = None) -> None:
    """Make the four vectors, reduce them to a rank, and write them.

    Args:
        arguments: Command-line arguments; those of the process if not given.
    """
    parser = argparse.ArgumentParser(description="Make the demo's alignment vectors.")
    parser.add_argument("--out", type=Path, default=Path("vectors/toy"), help="folder to write")
    parser.add_argument("--rank", type=int, default=RANK)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="threads of torch; 1 gives what ships")
    options = parser.parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    folder_made(options.out, VectorFileError)
    base = load_model()
    for name in (*DOMAINS, "safety"):
        start = time.process_time()
        whole = (
            safety_vector(base, seed=options.seed)
            if name == "safety"
            else domain_vector(base, name, seed=options.seed)
        )
        seconds = time.process_time() - start
        vector, table = low_rank(whole, rank=options.rank)
        path = options.out / f"{name}-weights.safetensors"
        _described(vector, table).save(path)
        _say(
            f"{path}: rank {options.rank} keeps {table.energy:.1%} of the energy, error "
            f"{table.error:.3f}, {seconds:.0f} s of CPU time"
        )


def _described(vector: Vector, table: TensorTable) -> Vector:
    made = vector.provenance
    kept = {"kept_energy": round(table.energy, 4), "error": round(table.error, 4)}
    return replace(
        vector,
        provenance=replace(made, arguments={**made.arguments, **kept}, license="Apache-2.0"),
    )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
