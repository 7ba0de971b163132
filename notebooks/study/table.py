"""The tables of the study, from its rows alone: `python -m notebooks.study table`."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from scipy import stats

from notebooks.study.blind import reading
from notebooks.study.levels import table as levels
from notebooks.study.markdown import markdown, number
from notebooks.study.matters import table as matters
from notebooks.study.rows import Row, latest, rows

COMPARED = ("palrs", "mean", "gradient", "dpo", "ipo", "dpo at 1", "ipo at 1")


def text() -> str:
    """Return every table as Markdown."""
    return "\n".join(section() for section in SECTIONS.values())


def with_tables(page: str) -> str:
    """Return a page with the tables of each section between its marks."""
    for name, section in SECTIONS.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, found, rest = page.partition(begin)
        if found:
            page = f"{before}{begin}\n\n{section()}\n{end}{rest.partition(end)[2]}"
    return page


def _behaviours() -> str:
    return "\n".join((_gains(), _answers(), _readings(), _costs()))


def gains() -> list[dict[str, Any]]:
    """Return, for each behaviour and condition, the mean paired change of margin on test pairs.

    p is that of a one-sided paired t test, Holm-corrected over behaviours × methods.
    """
    found: list[dict[str, Any]] = []
    for behaviour, own in _by_behaviour(rows("test")).items():
        base = own["unsteered"]["margins"]
        for name, row in own.items():
            if name == "unsteered":
                continue
            change = [a - b for a, b in zip(row["margins"], base, strict=True)]
            t = stats.ttest_1samp(change, 0.0, alternative="greater")
            half = stats.t.ppf(0.975, len(change) - 1) * stats.sem(change)
            mean = math.fsum(change) / len(change)
            found.append(
                {
                    "behaviour": behaviour,
                    "method": name,
                    "gain": mean,
                    "low": mean - half,
                    "high": mean + half,
                    "accuracy": sum(m > 0 for m in row["margins"]) / len(change),
                    "base": sum(m > 0 for m in base) / len(change),
                    "kl": row.get("kl_neutral"),
                    "kl_own": row.get("kl_own_prompts"),
                    "p": float(t.pvalue),
                    "n": len(change),
                }
            )
    family = [row for row in found if row["method"] in COMPARED]
    for row, p in zip(family, holm([row["p"] for row in family]), strict=True):
        row["holm"] = p
    return found


def holm(values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given."""
    order = sorted(range(len(values)), key=lambda k: values[k])
    adjusted, least = [0.0] * len(values), 0.0
    for rank, k in enumerate(order):
        least = max(least, min(1.0, (len(values) - rank) * values[k]))
        adjusted[k] = least
    return adjusted


def _by_behaviour(found: Iterable[Row]) -> dict[str, dict[str, Row]]:
    by: dict[str, dict[str, Row]] = {}
    for row in found:
        by.setdefault(row["behaviour"], {})[row["method"]] = row
    return by


def _gains() -> str:
    head = ("behaviour", "method", "gain in nats [95%]", "accuracy", "KL", "KL own", "p (Holm)")
    lines = []
    for row in gains():
        interval = f"{row['gain']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        accuracy = f"{row['base']:.0%} → {row['accuracy']:.0%}"
        p = f"{row['holm']:.2g}" if "holm" in row else "–"
        cells = (row["behaviour"], row["method"], interval, accuracy)
        lines.append((*cells, number(row["kl"]), number(row["kl_own"]), p))
    return markdown("Change of margin on test pairs", head, lines)


def _answers() -> str:
    head = ("behaviour", "method", "judged", "repeated 4-grams", "perplexity", "judge's error")
    lines = [
        (
            row["behaviour"],
            row["method"],
            f"{row['judged']:.0%}",
            f"{row['repetition']:.0%}",
            number(row["perplexity_of_answers"]),
            number(row["judge_error"]),
        )
        for row in rows("test")
    ]
    return markdown("Answers", head, lines)


def _readings() -> str:
    head = ("behaviour", "pairs read", "steered shows more", "unsteered shows more", "still answer")
    lines = [
        (name, found.pairs, found.steered, found.unsteered, f"{found.answering / found.pairs:.0%}")
        for name in _by_behaviour(rows("test"))
        if (found := reading(name))
    ]
    return markdown("Blind reading of `mean` beside `unsteered`", head, lines)


def _costs() -> str:
    head = (
        "behaviour",
        "method",
        "where",
        "coefficient",
        "CPU seconds",
        "peak MB beyond the model",
    )
    lines = [
        (
            row["behaviour"],
            row["method"],
            f"{row['position']}, layer {row['layer']}" if "layer" in row else f"rank {row['rank']}",
            number(row["coefficient"]),
            f"{row['cpu_seconds']:.0f}",
            str(row["extra_peak_mb"]),
        )
        for row in latest("make")
    ]
    return markdown("Making a knob", head, lines)


SECTIONS: Mapping[str, Callable[[], str]] = {
    "tables": _behaviours,
    "levels": levels.text,
    **matters.SECTIONS,
}
