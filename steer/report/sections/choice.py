"""What a selection chose, why, and what it is worth on pairs it never saw."""

from collections.abc import Iterator, Mapping

from steer.choice import Choice
from steer.evaluate.interval import Share
from steer.evaluate.table import Row
from steer.report.charts.intervals import intervals
from steer.report.html import figure, figures, interval, paragraph, table
from steer.search import Selection


def choice(result: Choice | Selection) -> str:
    """Return the setting, the reason, and the held-out accuracies beside the baselines.

    Args:
        result: What `steer.select` returned.
    """
    said = "" if result.works else " It is not shown to do more than the baselines."
    if isinstance(result, Choice):
        best = result.best
        what = f"{best.candidate}, layer {best.layer}, coefficient {best.coefficient:g}"
        why = f"Of {len(result.trials)} settings, within KL {result.kl_budget:g}. {result.evidence}"
        shares = {"": {"steered": result.test, **result.baselines}}
    else:
        what = ", ".join(f"{d} {c:g}" for d, c in result.coefficients.items())
        proofs = " ".join(f"{d}: {found}." for d, found in result.evidence.items())
        why = f"{result.why} {proofs}"
        shares = {d: {"steered": share, **result.baselines[d]} for d, share in result.test.items()}
    pictures = [
        figure(_picture(found), f"{domain} on {found['steered'].n} unseen pairs".strip())
        for domain, found in shares.items()
    ]
    head = paragraph(f"Chosen: {what}.{said}") + paragraph(why)
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
