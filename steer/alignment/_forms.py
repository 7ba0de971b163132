"""What all forms of a weight vector share."""

from collections.abc import Mapping
from dataclasses import replace

from steer.algebra import Residual, Site, Term, Vector
from steer.algebra._provenance import recorded
from steer.errors import AlignmentError


def derived(vector: Vector, terms: Mapping[Site, Term], form: str) -> Vector:
    """Return a vector in another form; its record gains a line that says which.

    Args:
        vector: The vector it was made from.
        terms: The new terms.
        form: What was done, with its arguments.
    """
    return replace(vector, terms=terms, provenance=recorded(vector.provenance, form), tuning=None)


def check_weights_only(vector: Vector, what: str) -> None:
    """Refuse a vector with residual sites where weights alone are meant.

    Args:
        vector: The vector.
        what: Name of the form.

    Raises:
        AlignmentError: It has residual sites.
    """
    if any(isinstance(site, Residual) for site in vector.sites):
        raise AlignmentError(
            f"{what} is a form of weight vectors",
            found=f"residual sites at layers {list(vector.layers)}",
            expected="weight sites alone",
            do=f"take the weights first: {what}(vector.weight, …)",
        )


def check_share(what: str, value: float, *, zero: bool) -> None:
    """Refuse a share that is none.

    Args:
        what: Its name.
        value: The share.
        zero: Whether 0 is allowed and 1 is not; otherwise it is the other way round.

    Raises:
        AlignmentError: It is out of range.
    """
    if not (0.0 <= value < 1.0 if zero else 0.0 < value <= 1.0):
        raise AlignmentError(
            f"{what} must be a share",
            found=value,
            expected="0 ≤ share < 1" if zero else "0 < share ≤ 1",
            do="pass for instance 0.2",
        )
