"""Stage `make`: an alignment vector per domain and contrast, by preference tuning.

An anchored vector is tuned on questions of the other domains as well, with pairs in either order
in turn. Both orders of a pair have opposite gradients where nothing has changed, and more and more
unequal ones where something has: on other domains, tuning leaves the preference as it was.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import steer
from notebooks.study.clock import peak
from notebooks.study.levels.data import DOMAINS, Domain, pairs
from steer import Pair, Pairs

RANK, RATE, BETA, BATCH = 8, 1e-3, 0.1, 4
KINDS: Mapping[str, tuple[tuple[tuple[str, str], ...], bool]] = {  # chosen over rejected; anchored?
    "plain": ((("expert", "avoidance"),), False),
    "anchored": ((("expert", "avoidance"),), True),
    "generic": ((("generic", "expert"), ("generic", "avoidance")), True),
}


def make(
    model: steer.Model, known: Mapping[str, Domain], kind: str, domain: str, folder: Path, seed: int
) -> dict[str, Any]:
    """Tune once through the pairs, save the alignment vector, and return what it cost."""
    own = preferences(known, kind, domain)
    before, start = peak(), time.process_time()
    with TemporaryDirectory() as adapter:
        steer.preference_tune(
            model,
            own,
            loss="sigmoid",
            beta=BETA,
            learning_rate=RATE,
            steps=-(-len(own) // BATCH),
            batch_size=BATCH,
            lora_rank=RANK,
            adapter=adapter,
            seed=seed,
            progress=False,
        )
        vector = steer.alignment_vector(
            model, adapter, domain=domain, dtype=torch.float16, progress=False
        )
    seconds = time.process_time() - start
    vector.save(file_of(folder, kind, domain))
    return {
        "pairs": len(own),
        "pairs_fingerprint": own.fingerprint,
        "learning_rate": RATE,
        "rank": RANK,
        "seed": seed,
        "cpu_seconds": round(seconds, 1),
        "extra_peak_mb": round((peak() - before) / 2**20),
    }


def file_of(folder: Path, kind: str, domain: str) -> Path:
    """Return where a vector is kept."""
    return folder / f"{domain}-{kind}.safetensors"


def preferences(known: Mapping[str, Domain], kind: str, domain: str) -> Pairs:
    """Return one pair for each training question, and as many of other domains for anchors."""
    contrasts, anchored = KINDS[kind]
    own = _in_turn(known[domain], contrasts, domain)
    others = [name for name in DOMAINS if name != domain] if anchored else []
    anchors = [
        pair if k % 4 < 2 else Pair(pair.prompt, pair.rejected, pair.chosen, pair.domain)
        for name in others
        for k, pair in enumerate(_in_turn(known[name], contrasts, name, every=len(others)))
    ]
    return Pairs.of([*own, *anchors])


def _in_turn(
    own: Domain, contrasts: tuple[tuple[str, str], ...], domain: str, every: int = 1
) -> list[Pair]:
    """Return a pair for every so many training questions, of each contrast in turn."""
    each = [list(pairs(own.train, *contrast, domain))[::every] for contrast in contrasts]
    return [each[k % len(each)][k] for k in range(len(each[0]))]
