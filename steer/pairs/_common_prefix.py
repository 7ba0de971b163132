"""What two sequences have in common from the start."""

from collections.abc import Sequence


def common_prefix_length(one: Sequence[object], other: Sequence[object]) -> int:
    """Return how many items two sequences share from the start.

    Args:
        one: Token ids, characters, messages or anything else that can be compared.
        other: Likewise.
    """
    for n, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return n
    return min(len(one), len(other))
