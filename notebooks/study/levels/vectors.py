"""Stage `make`: a vector per domain and contrast, by preference tuning or from activations.

An anchored vector is tuned on questions of the other domains as well, with pairs in either order
in turn. Both orders of a pair have opposite gradients where nothing has changed, and more and more
unequal ones where something has: on other domains, tuning leaves the preference as it was.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import steer
from notebooks.study.clock import peak
from notebooks.study.levels.data import DOMAINS, Domain, pairs
from steer import Pair, Pairs, Vector

RANK, BETA, BATCH = 8, 0.1, 4
ANCHORED = 40  # questions that an anchored vector is tuned on, and as many of the other domains
PAIRS = 24  # of a gradient, which needs as many backward passes
LAYER, SHARE = 20, 0.2  # of residual vectors; λ = 1 displaces by this share of the stream's norm
Contrasts = tuple[tuple[str, str], ...]  # levels, the one chosen over the other
_EXPERT: Contrasts = (("expert", "avoidance"),)
_AVOIDANCE: Contrasts = (("avoidance", "expert"), ("avoidance", "generic"))
_GENERIC: Contrasts = (("generic", "expert"), ("generic", "avoidance"))


def _tuned(rate: float) -> Callable[[steer.Model, Pairs, str, int], Vector]:
    return partial(_by_tuning, rate=rate)


def _by_tuning(model: steer.Model, own: Pairs, domain: str, seed: int, *, rate: float) -> Vector:
    with TemporaryDirectory() as adapter:
        steer.preference_tune(
            model,
            own,
            loss="sigmoid",
            beta=BETA,
            learning_rate=rate,
            steps=-(-len(own) // BATCH),
            batch_size=BATCH,
            lora_rank=RANK,
            adapter=adapter,
            seed=seed,
            progress=False,
        )
        return steer.alignment_vector(
            model, adapter, domain=domain, dtype=torch.float16, progress=False
        )


def _gradient(model: steer.Model, own: Pairs, domain: str, seed: int) -> Vector:
    return SHARE * steer.preference_gradient(
        model, own[:PAIRS], layers=[LAYER], scope="response", progress=False
    )


def _mean(model: steer.Model, own: Pairs, domain: str, seed: int) -> Vector:
    recording = steer.record(model, own, at="response_mean", layers=[LAYER], progress=False)
    return SHARE * steer.mean_difference(recording, rescale=True)


@dataclass(frozen=True)
class Kind:
    """How vectors of one kind are made.

    Args:
        how: Makes a vector of pairs.
        contrasts: Levels that the pairs compare, in turn.
        anchored: Whether questions of the other domains keep the tuning in place.
    """

    how: Callable[[steer.Model, Pairs, str, int], Vector]
    contrasts: Contrasts
    anchored: bool = False


KINDS: Mapping[str, Kind] = {
    "plain": Kind(_tuned(1e-3), _EXPERT),
    "avoidance": Kind(_tuned(2e-3), _AVOIDANCE, anchored=True),
    "generic": Kind(_tuned(2e-3), _GENERIC, anchored=True),
    "mean": Kind(_mean, _EXPERT),
    "mean generic": Kind(_mean, _GENERIC),
    "gradient": Kind(_gradient, _EXPERT),
    "gradient generic": Kind(_gradient, _GENERIC),
}


def make(
    model: steer.Model, known: Mapping[str, Domain], kind: str, domain: str, folder: Path, seed: int
) -> dict[str, Any]:
    """Make and save a vector, and return what it cost."""
    own = preferences(known, kind, domain)
    before, start = peak(), time.process_time()
    vector = KINDS[kind].how(model, own, domain, seed)
    seconds = time.process_time() - start
    vector.save(file_of(folder, kind, domain))
    return {
        "pairs": vector.provenance.pairs or len(own),
        "pairs_fingerprint": own.fingerprint,
        "seed": seed,
        "cpu_seconds": round(seconds, 1),
        "extra_peak_mb": round((peak() - before) / 2**20),
    }


def file_of(folder: Path, kind: str, domain: str) -> Path:
    """Return where a vector is kept."""
    return folder / f"{domain}-{kind.replace(' ', '-')}.safetensors"


def preferences(known: Mapping[str, Domain], kind: str, domain: str) -> Pairs:
    """Return one pair for each training question, and as many of other domains for anchors."""
    contrasts, most = KINDS[kind].contrasts, ANCHORED if KINDS[kind].anchored else None
    own = _in_turn(known[domain], contrasts, domain)[:most]
    others = [name for name in DOMAINS if name != domain] if KINDS[kind].anchored else []
    anchors = [
        pair if k % 4 < 2 else Pair(pair.prompt, pair.rejected, pair.chosen, domain)
        for name in others
        for k, pair in enumerate(_in_turn(known[name], contrasts, domain)[: ANCHORED // 2])
    ]
    return Pairs.of([*own, *anchors])


def _in_turn(own: Domain, contrasts: Contrasts, domain: str) -> list[Pair]:
    """Return a pair for each training question, of each contrast in turn."""
    each = [list(pairs(own.train, *contrast, domain)) for contrast in contrasts]
    return [each[k % len(each)][k] for k in range(len(each[0]))]
