"""A chosen setting on pairs that the choice never saw, beside what it is compared with."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from steer.algebra import Composition
from steer.engine._reading import dtype_of
from steer.measure import Preference, Share, random_like
from steer.measure._preference import with_prefix
from steer.measure._reduce import Reduce
from steer.model import Model
from steer.pairs import Message, Pairs
from steer.selection._kernel import preferences_at
from steer.selection._significance import Evidence, evidence, rounding

REFERENCES = 16  # random vectors that a choice is compared with


@dataclass(frozen=True, slots=True)
class HeldOutResult:
    """What one setting does on unseen pairs of one domain.

    Args:
        steered: Preference accuracy at the setting.
        base: The same of the unsteered model.
        random: The same of a random vector of equal norm at the setting.
        prompted: The same of the unsteered model after an instruction or worked examples; None
            where it was not measured.
        evidence: Tests of the margins against the unsteered model and random vectors.
    """

    steered: Share
    base: Share
    random: Share
    prompted: Share | None
    evidence: Evidence

    @property
    def baselines(self) -> dict[str, Share]:
        """The accuracies that the steered one is compared with, by name."""
        found = {"base": self.base, "random": self.random}
        return found if self.prompted is None else {**found, "prompted": self.prompted}


def held_out(
    model: Model,
    setting: Composition,
    unseen: Mapping[str, Pairs],
    reduce: Reduce,
    seed: int,
    settings: int,
    prefixes: Mapping[str, Sequence[Message]] | None = None,
    beside: Sequence[Composition] = (),
) -> tuple[dict[str, HeldOutResult], list[dict[str, Preference]]]:
    """Measure a setting on unseen pairs, beside the unsteered model and random vectors."""
    zero = setting(0.0)
    compared = [zero, *beside, setting, *references(setting, seed)]
    found = preferences_at(model, compared, unseen, reduce)
    base, steered, others = found[0], found[len(beside) + 1], found[len(beside) + 2 :]
    asked = {
        name: Pairs.of(replace(p, prompt=with_prefix(prefix, p.prompt)) for p in unseen[name])
        for name, prefix in (prefixes or {}).items()
    }
    (prompted,) = preferences_at(model, [zero], asked, reduce) if asked else ({},)
    dtype = dtype_of(model.architecture)
    results = {
        name: HeldOutResult(
            steered[name].accuracy,
            base[name].accuracy,
            others[0][name].accuracy,
            prompted[name].accuracy if name in prompted else None,
            evidence(
                base[name].margins.tolist(),
                steered[name].margins.tolist(),
                [other[name].margins.tolist() for other in others],
                settings,
                rounding(base[name], steered[name], dtype),
            ),
        )
        for name in unseen
    }
    return results, found[: len(beside) + 1]


def references(setting: Composition, seed: int) -> list[Composition]:
    """Return random vectors of equal norm at a setting; other seeds share none of them."""
    return [random_like(setting, _seed(seed, k)) for k in range(REFERENCES)]


def _seed(seed: int, k: int) -> int:
    """Return a seed of its own for the k-th draw under a seed."""
    return int.from_bytes(hashlib.sha256(f"{seed} {k}".encode()).digest()[:6])
