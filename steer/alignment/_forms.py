"""Forms of weight vectors: the bidirectional difference, magnitude, TIES and DARE."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce

import torch
from torch import Tensor

from steer._check import as_seed, number
from steer.algebra import Dense, Residual, Site, Term, Vector
from steer.algebra._provenance import combined, recorded
from steer.algebra._term import dense
from steer.errors import AlignmentError

_BLOCK = 2**22  # elements counted at a time
_HIGH, _LOW = 2**15, 2**16  # values of the two halves of a float32's bits, without the sign


def bidirectional(positive: Vector, negative: Vector) -> Vector:
    """Return φ = θ₊ − θ₋, the difference of two models aligned in opposite directions.

    Both vectors are taken from one base, θ± = θ + τ±, so that φ = τ₊ − τ₋. The negative of a
    one-sided vector is a weak opposite: in the paper cos(τ₊, τ₋) is between −0.47 and −0.71.

    φ is not halved: the paper's results are at coefficient 1 of this φ, and low-rank factors are
    joined without rounding. Where τ₋ = −τ₊, coefficient 1/2 gives the positive model and −1/2 the
    negative one, so search about half the range of a one-sided vector. Source: arXiv 2504.20106.

    Args:
        positive: Alignment vector of the model trained towards the behaviour.
        negative: Alignment vector of the model trained away from it, from the same base.

    Returns:
        The vector φ.

    Raises:
        AlignmentError: A vector has residual sites.
        AlgebraError: The vectors belong to different models.
    """
    for vector in (positive, negative):
        check_weights_only(vector, "bidirectional")
    difference = positive - negative
    return replace(difference, provenance=replace(difference.provenance, method="bidirectional"))


def magnitude(vector: Vector, density: float) -> Vector:
    """Return the vector with only its largest entries, the rest set to zero.

    The entries of all parameters are ranked together by absolute value. Entries equal to the
    smallest one kept are kept as well, so slightly more than `density` may remain. Low-rank terms
    become dense; parameters that become zero are omitted, unless all do.

    Args:
        vector: A weight vector.
        density: Share of the entries to keep, in (0, 1].

    Returns:
        A vector of dense terms.

    Raises:
        ArgumentError: The density is out of range.
        AlignmentError: There are residual sites.
    """
    check_weights_only(vector, "magnitude")
    number("density", density, above=0, most=1)
    smallest = _smallest_kept(vector, density)
    terms = {}
    for site, term in vector.terms.items():
        W = _trimmed(dense(term), smallest)
        if bool(W.any()):
            terms[site] = Dense(W)
    if not terms:  # a vector has at least one term
        terms = {site: Dense(dense(term)) for site, term in vector.terms.items()}
    return derived(vector, terms, f"magnitude(density={density:g})")


def ties(vectors: Sequence[Vector], density: float = 0.2) -> Vector:
    """Merge several vectors by trimming, electing a sign, and a disjoint mean.

    Each vector keeps its largest entries (see `magnitude`). For each entry, the sign of the sum of
    the kept values is elected, and the mean is taken over the vectors that have that sign:

        τ = mean{τ̂ᵢ : sgn τ̂ᵢ = γ},  γ = sgn Σ τ̂ᵢ  (0 where γ = 0)

    The paper's λ is the coefficient that the result is used with. Source: arXiv 2306.01708.

    Args:
        vectors: Weight vectors of one model.
        density: Share of the entries of each vector to keep, in (0, 1].

    Returns:
        A vector of dense terms.

    Raises:
        ArgumentError: The density is out of range.
        AlignmentError: There is no vector, one has residual sites, or nothing remains.
        AlgebraError: The vectors belong to different models.
    """
    number("density", density, above=0, most=1)
    for vector in vectors:
        check_weights_only(vector, "ties")
    if not vectors:
        raise _nothing("no vector", "at least one")
    smallest = [_smallest_kept(vector, density) for vector in vectors]
    terms = {}
    for site in dict.fromkeys(site for vector in vectors for site in vector.sites):
        kept = [
            _trimmed(dense(v.terms[site]), t)
            for v, t in zip(vectors, smallest, strict=True)
            if site in v.terms
        ]
        merged = _disjoint_mean(kept)
        if bool(merged.any()):
            terms[site] = Dense(merged)
    if not terms:
        raise _nothing("entries that cancel everywhere", "a difference that does not vanish")
    made = reduce(combined, (vector.provenance for vector in vectors))
    arguments = {"density": density, "vectors": len(vectors)}
    return Vector(terms, replace(made, method="ties", arguments=arguments))


def dare(vector: Vector, drop: float, seed: int) -> Vector:
    """Return the vector with entries dropped at random and the rest rescaled.

    Each entry is zero with probability p and x / (1 − p) otherwise, so that its mean is x. The
    choice depends only on the seed and the parameter's name. Low-rank terms become dense.
    Source: arXiv 2311.03099.

    Args:
        vector: A weight vector.
        drop: Probability p, in [0, 1).
        seed: Seed of the choice.

    Returns:
        A vector of dense terms.

    Raises:
        ArgumentError: The probability is out of range, or the seed is no integer of 64 bits.
        AlignmentError: There are residual sites.
    """
    check_weights_only(vector, "dare")
    number("drop", drop, least=0, below=1)
    seed = as_seed(seed)
    terms = {}
    for site, term in vector.terms.items():
        W = dense(term)
        kept = torch.rand(W.shape, generator=_generator(site, seed)) >= drop
        terms[site] = Dense((W / (1.0 - drop)).masked_fill_(~kept.to(W.device), 0.0))
    return derived(vector, terms, f"dare(drop={drop:g}, seed={seed})")


def derived(vector: Vector, terms: Mapping[Site, Term], form: str) -> Vector:
    """Return a vector with other terms; its record gains a line that names the form."""
    return replace(vector, terms=terms, provenance=recorded(vector.provenance, form), tuning=None)


def check_weights_only(vector: Vector, what: str) -> None:
    """Refuse residual sites in a form of weight vectors."""
    if any(isinstance(site, Residual) for site in vector.sites):
        raise AlignmentError(
            f"{what} is a form of weight vectors",
            found=f"residual sites at layers {list(vector.layers)}",
            expected="weight sites only",
            do=f"take the weights first: {what}(vector.weight, …)",
        )


def _generator(site: Site, seed: int) -> torch.Generator:
    digest = hashlib.sha256(f"{seed} {site}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


def _disjoint_mean(kept: Sequence[Tensor]) -> Tensor:
    total = reduce(torch.add, kept)
    elected = total.sign()
    agreeing = torch.zeros_like(total)
    count = torch.zeros_like(total)
    for W in kept:
        agrees = (W.sign() == elected) & (elected != 0)
        agreeing += torch.where(agrees, W, 0.0)
        count += agrees
    return agreeing / count.clamp_min_(1.0)


def _trimmed(W: Tensor, smallest: float) -> Tensor:
    return torch.where(W.abs().float() >= smallest, W, W.new_zeros(()))


def _smallest_kept(vector: Vector, density: float) -> float:
    """Return the k-th largest |x| of all entries, k = density × their number.

    The bits of positive float32 numbers, read as integers, have the same order as the numbers. Two
    histograms, of the upper and then of the lower bits, find the k-th without a sort.
    """
    total = sum(math.prod(term.shape) for term in vector.terms.values())
    wanted = max(1, round(density * total))
    upper = torch.zeros(_HIGH, dtype=torch.int64)
    for bits in _bits(vector):
        upper += torch.bincount(bits >> 16, minlength=_HIGH).cpu()
    high, above = _bin(upper, wanted)
    lower = torch.zeros(_LOW, dtype=torch.int64)
    for bits in _bits(vector):
        rest = (bits & 0xFFFF)[bits >> 16 == high]
        lower += torch.bincount(rest, minlength=_LOW).cpu()
    low, _ = _bin(lower, wanted - above)
    return float(torch.tensor([high << 16 | low], dtype=torch.int32).view(torch.float32))


def _bits(vector: Vector) -> Iterator[Tensor]:
    for term in vector.terms.values():
        for block in dense(term).reshape(-1).split(_BLOCK):
            yield block.abs().float().contiguous().view(torch.int32)


def _bin(counts: Tensor, wanted: int) -> tuple[int, int]:
    """Return the bin of the `wanted`-th largest value, and the count above that bin."""
    from_top = counts.flip(0).cumsum(0)
    index = int((from_top < wanted).sum())
    above = int(from_top[index - 1]) if index else 0
    return len(counts) - 1 - index, above


def _nothing(found: str, expected: str) -> AlignmentError:
    return AlignmentError(
        "nothing to merge",
        found=found,
        expected=expected,
        do="take the vectors with alignment_vector(base, aligned) first",
    )
