"""The tables of what matters, from their rows alone."""

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

from scipy import stats

from notebooks.study.markdown import markdown, number
from notebooks.study.rows import Row, rows
from steer.measure import mean_of

RESAMPLES = 2000
_BESIDE = ("mean", "gradient")
_NAMED = ("behaviour", "layer", "direction")
_READ = ("mean", "gradient", "generated", "mixed 0.5", "words", "fisher", "layers", "random 0")
_RUN = re.compile(r"([^\w\s])\s*(?:\1\s*){3,}")  # one mark or emoji, four times or more


def gain(values: Sequence[float]) -> str:
    """Return the mean of paired changes with its 95% t interval."""
    found = mean_of("gain", values)
    return f"{found.value:+.2f} [{found.interval[0]:+.2f}, {found.interval[1]:+.2f}]"


def compared() -> list[Row]:
    """Return, for each direction, its gains and their paired differences to two others."""
    found: list[Row] = []
    measured = [row for stage in ("directions", "words", "confirm") for row in rows(stage)]
    for group in _by(measured, "behaviour", "layer").values():
        margins = {row["method"]: row["margins"] for row in group}
        for row in group:
            own = {o: _minus(row["margins"], margins[o]) for o in _BESIDE if o in margins}
            gains = _minus(row["margins"], margins["unsteered"])
            found.append({**row, "gains": gains, "beside": own})
    return found


def runs(answers: Sequence[str]) -> float:
    """Return the share of answers in which one mark or emoji comes four times running."""
    return fmean(bool(_RUN.search(answer)) for answer in answers)


def _directions() -> str:
    head = [*_NAMED, "gain in nats [95%]", "− mean", "− gradient"]
    head += ["KL", "judged", "repeated", "runs", "marks", "cos mean", "cos gradient"]
    lines = []
    for row in compared():
        plain = row["method"] == "unsteered"
        beside = [
            "–" if plain or row["method"] == other else gain(row["beside"][other])
            for other in _BESIDE
        ]
        cosines = ["–" if plain else f"{row['cosines'][other]:+.2f}" for other in _BESIDE]
        lines.append(
            (
                row["behaviour"],
                row["layer"],
                row["method"],
                "–" if plain else gain(row["gains"]),
                *beside,
                number(row["kl_neutral"]),
                f"{row['judged']:.0%}",
                f"{row['repetition']:.0%}",
                f"{runs(row['answers']):.0%}",
                f"{row['marks']:.1f}",
                *cosines,
            )
        )
    return markdown("Directions at equal KL, validation pairs", head, lines) + "\n" + _tokens()


def _tokens() -> str:
    groups = ("1–4", "5–12", "13–", "words", "marks")
    columns = [f"{side} {group}" for side in ("chosen", "rejected") for group in groups]
    lines = [
        (
            row["behaviour"],
            row["layer"],
            row["method"],
            *(f"{row['tokens'][c]:+.2f}" if c in row["tokens"] else "–" for c in columns),
        )
        for row in compared()
        if row["method"] in _READ
    ]
    head = (*_NAMED, *columns)
    return markdown("Change of log-probability per token", head, lines)


def _pairs() -> str:
    head = ("behaviour", "pairs", "gain in nats, mean over draws", "least", "most", "cosine to all")
    lines = []
    for (behaviour, size), group in _by(rows("pairs"), "behaviour", "pairs").items():
        means = [fmean(row["gains"]) for row in group]
        cosine = number(fmean(row["cosine"] for row in group))
        spread = (f"{fmean(means):+.2f}", f"{min(means):+.2f}", f"{max(means):+.2f}")
        lines.append((behaviour, size, *spread, cosine))
    return markdown("Number of pairs", head, lines)


def _map() -> str:
    parts = []
    for (behaviour,), group in _by(rows("map"), "behaviour").items():
        layers = sorted({row["layer"] for row in group})
        lines = [
            (position, *(_cell(group, position, layer) for layer in layers))
            for position in dict.fromkeys(row["position"] for row in group)
        ]
        title = f"Where `{behaviour}` is read and acts (bold: what PaLRS's rule picks)"
        parts.append(markdown(title, ("position", *map(str, layers)), lines))
    return "\n".join(parts)


def _cell(group: Sequence[Row], position: str, layer: int) -> str:
    found = [r for r in group if (r["position"], r["layer"]) == (position, layer)]
    if not found:
        return ""
    value = f"{fmean(found[0]['gains']):+.2f}"
    return f"**{value}**" if found[0]["palrs"] else value


def _dose() -> str:
    head = ("behaviour", "× budget", "margin in nats [95%]", "KL", "answers")
    lines = [
        (
            row["behaviour"],
            f"{row['times']:+g}",
            gain(row["margins"]),
            number(row["kl_neutral"]),
            "<br>".join(" ".join(a.split()).replace("|", "\\|") for a in row["answers"]),
        )
        for row in rows("dose")
    ]
    return markdown("Dose, response and text", head, lines)


def _transfer() -> str:
    table = {(r["behaviour"], r["vector"]): fmean(r["gains"]) for r in rows("transfer")}
    names = list(dict.fromkeys(on for on, _ in table))
    lines = [(f"`{v}`", *(f"{table[on, v]:+.2f}" for on in names)) for v in names]
    return markdown("Gain of each vector (row) on each behaviour", ("vector", *names), lines)


def _reliability() -> str:
    found = rows("reliability")
    behaviours = list(dict.fromkeys(row["behaviour"] for row in found))
    head = ("measure", "all cells [95%]", "within layers [95%]", "cells", "behaviours")
    lines = []
    for name in found[0]["measures"] if found else ():
        cells = []
        for correlation in (rank_correlation, within_layers):
            low, high = _bootstrap(found, behaviours, name, correlation)
            cells.append(f"{correlation(found, name):+.2f} [{low:+.2f}, {high:+.2f}]")
        lines.append((name, *cells, len(found), len(behaviours)))
    return markdown("Does a measure predict the gain? Spearman's correlation", head, lines)


def rank_correlation(found: Sequence[Row], measure: str) -> float:
    """Return Spearman's correlation of a measure with the mean gain."""
    values = [row["measures"][measure] for row in found]
    return float(stats.spearmanr(values, [fmean(row["gains"]) for row in found]).statistic)


def within_layers(found: Sequence[Row], measure: str) -> float:
    """Return the mean over layers of the correlation over behaviours."""
    by_layer = _by(found, "layer").values()
    return fmean(rank_correlation(group, measure) for group in by_layer)


def _bootstrap(
    found: Sequence[Row],
    behaviours: Sequence[str],
    measure: str,
    correlation: Callable[[Sequence[Row], str], float],
) -> tuple[float, float]:
    """Return a 95% percentile interval over resampled behaviours."""
    generator, own = random.Random(0), _by(found, "behaviour")
    values: list[float] = []
    while len(values) < RESAMPLES:
        drawn = generator.choices(behaviours, k=len(behaviours))
        if len(set(drawn)) > 2:  # two behaviours have a correlation of 1 or −1
            values.append(correlation([row for name in drawn for row in own[name,]], measure))
    values.sort()
    return values[RESAMPLES // 40], values[-RESAMPLES // 40]


def by_answer(row: Row) -> tuple[float, float]:
    """Return the mean gain where Yes is chosen, and where No is."""
    sides = zip(row["gains"], row["yes"], strict=True)
    by_side: tuple[list[float], list[float]] = ([], [])
    for value, yes in sides:
        by_side[not yes].append(value)
    return fmean(by_side[0]), fmean(by_side[1])


def _shuffled() -> str:
    head = ("behaviour", "labels", "gain in nats [95%]", "Yes chosen", "No chosen", "mean of both")
    lines = []
    for (behaviour,), group in _by(rows("shuffled"), "behaviour").items():
        for row in group:
            sides = [f"{x:+.2f}" for x in (*by_answer(row), fmean(by_answer(row)))]
            lines.append((behaviour, row["labels"], gain(row["gains"]), *sides))
        others = [row for row in group if row["labels"] != "true"]
        whole = gain([fmean(row["gains"]) for row in others])
        both = gain([fmean(by_answer(row)) for row in others])
        lines.append((behaviour, "all shuffled, over draws", whole, "", "", both))
    return markdown("Shuffled labels", head, lines)


def _inside() -> str:
    head = ["behaviour", "layer", "moved / stream", "common", "cosine with `mean`"]
    head += ["displacement alone", "mean alone", "random alone", "left without it"]
    lines = []
    for (behaviour,), group in _by(rows("inside"), "behaviour").items():
        whole = fmean(next(row["gains"] for row in group if row["layer"] is None))
        lines.append((behaviour, "`dpo`", "–", "–", "–", f"{whole:+.2f} nats", "–", "–", "–"))
        for row in (row for row in group if row["layer"] is not None):
            alone = [f"{fmean(values) / whole:.0%}" for values in row["gains"].values()]
            left = f"{fmean(row['gains_without']) / whole:.0%}"
            size = (f"{row['relative']:.0%}", f"{row['common']:.2f}", f"{row['cosine']:+.2f}")
            lines.append((behaviour, row["layer"], *size, *alone, left))
    return markdown("What an alignment vector does inside; shares of its gain", head, lines)


def _by(found: Iterable[Row], *names: str) -> Mapping[tuple[object, ...], list[Row]]:
    """Return rows by the values of some columns, in the order in which they come."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in found:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def _minus(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]


SECTIONS: Mapping[str, Callable[[], str]] = {
    "directions": _directions,
    "pairs": _pairs,
    "map": _map,
    "dose": _dose,
    "transfer": _transfer,
    "reliability": _reliability,
    "shuffled": _shuffled,
    "inside": _inside,
}
