"""Forms of weight vectors: their shared checks and records, and the bidirectional difference."""

from collections.abc import Mapping
from dataclasses import replace

from steer.algebra import Residual, Site, Term, Vector
from steer.algebra._provenance import recorded
from steer.errors import AlignmentError


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
