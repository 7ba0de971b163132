"""Weight sites by hook, compared with merging in full precision."""

from typing import Any

import torch
from torch import Tensor

from steer import Dense, Model, Vector, Weight, compose
from steer.engine._weights import plan as planning
from steer.engine._weights.plan import Plan
from tests.conformance import cases
from tests.conformance.cases import close, same_bits
from tests.tiny import MIXTURES, tiny_model
from tests.weights import merged

IDS = torch.tensor(cases.sequences([(9, 0)] * 4))
ROWS = [{"a": 1.0}, {}, {"a": -0.5, "b": 0.25}, {"b": 2.0}]
EXACT = ("gpt2", "gpt_neox", "opt", "falcon")  # no norm that computes in float32 by itself


def family_model(family: str, **sizes: Any) -> Any:
    """One in float64, in which fused experts do not run."""
    dtype = torch.float32 if family in MIXTURES else torch.float64
    return tiny_model(family, dtype=dtype, **sizes)


def bound(family: str) -> float:
    return 1e-5 if family in MIXTURES else 1e-12 if family in EXACT else 3e-6


def logits(hf: Any) -> Tensor:
    with torch.no_grad():
        return hf(IDS).logits  # type: ignore[no-any-return]


def plan_of(lm: Model, vector: Vector, way: Any = "hook") -> Plan:
    return planning.plan(compose(v=vector), lm.architecture, way)


def like_merging(hf: Any, vectors: dict[str, Vector], bound: float) -> None:
    """Fail unless one setting and rows give what merging in full precision gives."""
    lm = Model(hf)
    plain = logits(hf)
    one = dict.fromkeys(vectors, 0.75)
    with lm.steered(vectors, one, weights="hook"):
        found = logits(hf)
    dtype = plain.dtype
    expected = logits(merged(hf, *((v, 0.75) for v in vectors.values())).to(dtype))
    close(found, expected, bound)
    assert cases.distance(found, plain) > 10 * bound
    rows = [{k: c for k, c in row.items() if k in vectors} for row in ROWS]
    with lm.steered(vectors, rows, weights="hook"):
        found = logits(hf)
    for r, row in enumerate(rows):
        added = [(v, row.get(name, 0.0)) for name, v in vectors.items()]
        close(found[r], logits(merged(hf, *added).to(dtype))[r], bound)
    cases.idle(hf.config.model_type, found[1], plain[1])
    assert same_bits(logits(hf), plain)


def untied(hf: Any, name: str, seed: int) -> Vector:
    """A dense displacement of one matrix."""
    shape = dict(hf.named_parameters())[name].shape
    return Vector({Weight(name): Dense(0.1 * torch.randn(shape, generator=cases.generator(seed)))})
