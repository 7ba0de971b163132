"""How judged answers changed between two conditions."""

from steer.measure._estimate import Estimate, mean_of
from steer.measure._interval import ShareChange
from steer.measure._judge.result import Judged


def judged_change(before: Judged, after: Judged) -> ShareChange | Estimate:
    """Return how much the accuracy, or without a label wanted the score, changed item by item.

    Args:
        before: Answers under one condition.
        after: Answers to the same prompts under another.

    Raises:
        SelectionError: No label is wanted, and no item has a score both times.
        JudgeError: Some answers were not judged.
    """
    if after.wanted is not None:
        return ShareChange.of(before.hits, after.hits)
    before.check_heard()
    after.check_heard()
    return mean_of("change of judged score", _differences(before, after))


def has_change(before: Judged, after: Judged) -> bool:
    """Return whether `judged_change` is defined: all were judged, and there is what to compare.

    Args:
        before: Answers under one condition.
        after: Answers to the same prompts under another.
    """
    if before.failed or after.failed:
        return False
    return after.wanted is not None or bool(_differences(before, after))


def _differences(before: Judged, after: Judged) -> list[float]:
    """Return the change of each item's score, where both were decided."""
    return [
        float(b.label) - float(a.label)
        for a, b in zip(before.verdicts, after.verdicts, strict=True)
        if isinstance(a.label, int | float) and isinstance(b.label, int | float)
    ]
