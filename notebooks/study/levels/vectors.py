"""Stage `make`: a vector per domain and contrast, by preference tuning or from activations.

A vector may be tuned on questions of the other domains as well. `either`: with pairs in either
order in turn; both orders have opposite gradients where nothing has changed, and more and more
unequal ones where something has, so that tuning leaves the preference there as it was. `opposite`:
with all pairs reversed, so that what the domains share has opposite gradients from the start.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import steer
from notebooks.study.clock import peak
from notebooks.study.levels.data import DOMAINS, Domain, pairs
from steer import Pair, Pairs, Vector
from steer.alignment import in_domain

RANK, BETA = 8, 0.1
CONTRASTED = 32  # questions of a domain that is tuned against others, and as many of these
FEW, MORE = 24, 48  # pairs of a gradient, each of which needs two backward passes
LAYERS = tuple(range(6, 30, 2))  # of a gradient at many sites
ONE, MANY = 0.2, 0.04  # λ = 1 displaces by this share of the stream's norm, at each site
READ, TIMES = 20, 1.5  # questions a domain is read from; readers find two thirds of their target
READING = "reading"  # the kind of all domains and both contrasts at once
Contrasts = tuple[tuple[str, str], ...]  # levels, the one chosen over the other
Known = Mapping[str, Domain]
How = Callable[[steer.Model, Pairs, str, int], Vector]
_EXPERT: Contrasts = (("expert", "avoidance"),)
_AVOIDANCE: Contrasts = (("avoidance", "expert"), ("avoidance", "generic"))
_GENERIC: Contrasts = (("generic", "expert"), ("generic", "avoidance"))


def _tuned(rate: float, batch: int) -> How:
    def made(model: steer.Model, own: Pairs, domain: str, seed: int) -> Vector:
        with TemporaryDirectory() as adapter:
            steer.preference_tune(
                model,
                own,
                loss="sigmoid",
                beta=BETA,
                learning_rate=rate,
                steps=-(-len(own) // batch),
                batch_size=batch,
                lora_rank=RANK,
                adapter=adapter,
                seed=seed,
                progress=False,
            )
            return steer.alignment_vector(
                model, adapter, domain=domain, dtype=torch.float16, progress=False
            )

    return made


def _gradient(share: float, number: int, layers: Sequence[int]) -> How:
    def made(model: steer.Model, own: Pairs, domain: str, seed: int) -> Vector:
        return share * steer.preference_gradient(
            model, own[:number], layers=layers, scope="response", progress=False
        )

    return made


@dataclass(frozen=True)
class Kind:
    """How vectors of one kind are made.

    Args:
        how: Makes a vector of pairs.
        contrasts: Levels that the pairs compare, in turn.
        others: Order of the pairs of other domains: `either`, `opposite`, or "" without any.
    """

    how: How
    contrasts: Contrasts
    others: str = ""


KINDS: Mapping[str, Kind] = {
    "plain": Kind(_tuned(1e-3, 4), _EXPERT),
    "anchored avoidance": Kind(_tuned(2e-3, 4), _AVOIDANCE, "either"),
    "slowly contrasted avoidance": Kind(_tuned(2e-3, 4), _AVOIDANCE, "opposite"),
    "contrasted avoidance": Kind(_tuned(3e-3, 2), _AVOIDANCE, "opposite"),
    "contrasted generic": Kind(_tuned(3e-3, 2), _GENERIC, "opposite"),
    "gradient": Kind(_gradient(ONE, FEW, [20]), _EXPERT),
    "gradient generic": Kind(_gradient(ONE, FEW, [20]), _GENERIC),
    "sites": Kind(_gradient(MANY, MORE, LAYERS), _EXPERT),
    "sites generic": Kind(_gradient(MANY, MORE, LAYERS), _GENERIC),
}


def make(
    model: steer.Model, known: Known, kind: str, domain: str, folder: Path, seed: int
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


def make_reading(model: steer.Model, known: Known, folder: Path) -> dict[str, Any]:
    """Turn the vectors of `sites` into ones that act where they read their domain."""
    kinds = {"sites": "reading", "sites generic": "reading generic"}
    made = {
        (new, d): Vector.load(file_of(folder, old, d))
        for old, new in kinds.items()
        for d in DOMAINS
    }
    texts = [
        pair
        for d, own in known.items()
        for chosen in ("expert", "generic")
        for pair in pairs(own.train, chosen, "avoidance", d)[:READ]
    ]
    before, start = peak(), time.process_time()
    named = {" ".join(name): vector for name, vector in made.items()}
    found = in_domain(model, named, Pairs.of(texts), progress=False)
    seconds = time.process_time() - start
    for name, vector in zip(made, found.values(), strict=True):
        (TIMES * vector).save(file_of(folder, *name))
    return {
        "pairs": len(texts),
        "cpu_seconds": round(seconds, 1),
        "extra_peak_mb": round((peak() - before) / 2**20),
    }


def file_of(folder: Path, kind: str, domain: str) -> Path:
    """Return where a vector is kept."""
    return folder / f"{domain}-{kind.replace(' ', '-')}.safetensors"


def preferences(known: Known, name: str, domain: str) -> Pairs:
    """Return one pair for each training question, and as many of other domains for anchors."""
    kind = KINDS[name]
    own = _in_turn(known[domain], kind.contrasts, domain)
    if not kind.others:
        return Pairs.of(own)
    others = [
        pair if kind.others == "either" and k % 4 < 2 else _reversed(pair)
        for other in DOMAINS
        if other != domain
        for k, pair in enumerate(_in_turn(known[other], kind.contrasts, domain)[: CONTRASTED // 2])
    ]
    return Pairs.of([*own[:CONTRASTED], *others])


def _reversed(pair: Pair) -> Pair:
    return Pair(pair.prompt, pair.rejected, pair.chosen, pair.domain)


def _in_turn(own: Domain, contrasts: Contrasts, domain: str) -> list[Pair]:
    """Return a pair for each training question, of each contrast in turn."""
    each = [list(pairs(own.train, *contrast, domain)) for contrast in contrasts]
    return [each[k % len(each)][k] for k in range(len(each[0]))]
