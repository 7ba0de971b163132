"""Baselines of steering: random vectors of equal norm, and prompts."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from steer.algebra import Composition, Dense, Direction, LowRank, Term, Vector, inner
from steer.pairs import Message, Pair

_What = TypeVar("_What", Vector, Composition)
_SHOTS = 2  # worked examples of a prompted baseline


def random_like(what: _What, seed: int) -> _What:
    """Return random terms at the sites of a vector, each with the Frobenius norm of the original.

    Directions and dense arrays get normal entries, low-rank terms normal factors of equal rank;
    each is then scaled to the norm of the term it replaces.

    Args:
        what: A vector; or a composition, which keeps operators, scopes, coefficients and gate.
        seed: Seed; equal seeds give equal terms.

    Returns:
        A vector without provenance, or a composition of such vectors.
    """
    generator = torch.Generator().manual_seed(seed)
    if isinstance(what, Vector):
        return _random_vector(what, generator)
    parts = {
        name: replace(part, vector=_random_vector(part.vector, generator))
        for name, part in what.parts.items()
    }
    return replace(what, parts=parts)


def _random_vector(vector: Vector, generator: torch.Generator) -> Vector:
    return Vector({site: _random_term(term, generator) for site, term in vector.terms.items()})


def _random_term(term: Term, generator: torch.Generator) -> Term:
    """Return a random term with the same kind, shape, rank, dtype and norm."""
    length = max(inner(term, term), 0.0) ** 0.5
    match term:
        case Direction(v):
            return Direction(_normal(v, generator, length))
        case Dense(W):
            return Dense(_normal(W, generator, length))
        case LowRank(B, A):
            b = torch.randn(B.shape, generator=generator, dtype=torch.float64)
            a = torch.randn(A.shape, generator=generator, dtype=torch.float64) / A.shape[1] ** 0.5
            product = LowRank(b, a)
            b = b * (length / max(inner(product, product), 1e-300) ** 0.5)
            return LowRank(b.to(B), a.to(A))


def _normal(like: Tensor, generator: torch.Generator, length: float) -> Tensor:
    g = torch.randn(like.shape, generator=generator, dtype=torch.float64)
    drawn: Tensor = g * (length / g.norm())
    return drawn.to(like)


def prompt_prefix(instruction: str | None, pairs: Sequence[Pair]) -> tuple[Message, ...]:
    """Return the messages of a prompted baseline: an instruction, or else two worked examples.

    Args:
        instruction: A system message.
        pairs: Pairs that are not measured; without an instruction the first two with a plain
            prompt are shown with their chosen answers.

    Returns:
        Messages to put before every prompt; none where there is neither.
    """
    if instruction is not None:
        return (Message("system", instruction),)
    shots: list[Message] = []
    for pair in [pair for pair in pairs if isinstance(pair.prompt, str)][:_SHOTS]:
        shots += [Message("user", str(pair.prompt)), Message("assistant", pair.chosen)]
    return tuple(shots)
