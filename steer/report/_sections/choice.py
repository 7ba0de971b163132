"""What a selection chose, why, and what it is worth on pairs it never saw."""

from collections.abc import Iterator, Mapping

from steer.measure import Share
from steer.report._charts.intervals import intervals
from steer.report._html import figure, figures, interval, paragraph, table
from steer.selection import Selection
from steer.show import Row


def choice(result: Selection) -> str:
    """Return the setting, the reason, and the held-out accuracies beside the baselines.

    Args:
        result: What `steer.select` returned.
    """
    said = "" if result.likelihood_effect else " No effect is shown beyond chance."
    what = ", ".join(f"{d} {c:.4g}" for d, c in result.coefficients.items())
    at = f"{result.best.name}, " if result.best.name else ""
    proofs = " ".join(f"{d}: {found}." for d, found in result.evidence.items())
    shares = {d: {"steered": share, **result.baselines[d]} for d, share in result.test.items()}
    pictures = [
        figure(_picture(found), f"{domain} on {found['steered'].n} unseen pairs")
        for domain, found in shares.items()
    ]
    seen = "" if result.visible is None else paragraph(str(result.visible))
    head = paragraph(f"Chosen: {at}{what}.{said}") + paragraph(f"{result.why} {proofs}") + seen
    return head + figures(pictures) + table(list(_rows(shares)))


def _picture(shares: Mapping[str, Share]) -> str:
    values = {name: (share.value, *share.interval) for name, share in shares.items()}
    return intervals(values, "preference accuracy", share=True)


def _rows(shares: Mapping[str, Mapping[str, Share]]) -> Iterator[Row]:
    for domain, found in shares.items():
        for name, share in found.items():
            row: Row = {"domain": domain} if domain else {}
            accuracy = interval(share.value, share.interval)
            yield row | {"condition": name, "preference accuracy": accuracy, "pairs": share.n}
