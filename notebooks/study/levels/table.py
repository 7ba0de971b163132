"""The tables of three domains at three levels, from their rows alone."""

from collections.abc import Iterator, Mapping
from statistics import fmean

from notebooks.study.levels.data import DOMAINS, LEVELS
from notebooks.study.levels.results import by_attempt, found, measured, tables_of
from notebooks.study.levels.scores import COMBINATIONS, Tables, Wanted, reached, share
from notebooks.study.levels.search import best_of
from notebooks.study.markdown import markdown


def text() -> str:
    """Return every table as Markdown."""
    tested = (_reached, _each) if found(stage="test", attempt="unsteered") else ()
    return "\n".join(part() for part in (_interference, *tested, _shares, _costs))


def _interference() -> str:
    head = ("attempt", "knob", "λ", *(f"in {domain}" for domain in DOMAINS), "elsewhere / own")
    lines = []
    for attempt in by_attempt("search"):
        known = measured(attempt)
        knobs = _knobs(attempt)
        base = known[(0.0,) * len(knobs)]
        for k, knob in enumerate(knobs):
            alone = [row for row in known if row[k] and sum(map(bool, row)) == 1]
            for row in (row for row in alone if abs(row[k]) == 1):
                own = [_margin(known[row], base, knob, domain) for domain in DOMAINS]
                here = own[DOMAINS.index(knob.split()[0])]
                others = [x for d, x in zip(DOMAINS, own, strict=True) if d != knob.split()[0]]
                ratio = fmean(abs(x) for x in others) / abs(here)
                cells = (f"{row[k]:+g}", *(f"{x:+.2f}" for x in own), f"{ratio:.2f}")
                lines.append((attempt, knob, *cells))
    return markdown("What each knob does in each domain", head, lines)


def _margin(now: Tables, base: Tables, knob: str, domain: str) -> float:
    """Return the mean change of the margin that a knob is made for, in nats per token."""
    change = (now[domain] - base[domain]).mean(dim=0)
    level = knob.split()[-1]
    if level in LEVELS:
        others = [float(change[LEVELS.index(other)]) for other in LEVELS if other != level]
        return float(change[LEVELS.index(level)]) - fmean(others)
    return float(change[LEVELS.index("expert")] - change[LEVELS.index("avoidance")])


def _reached() -> str:
    head = ("attempt", "settings measured", "on search questions", "tested", "reached", "CPU s")
    base = tables_of(found(stage="test", attempt="unsteered")[0])
    still = sum(_holds(base, base, wanted) for wanted in COMBINATIONS)
    lines: list[tuple[object, ...]] = [("λ = 0", 1, "–", 27, f"{still} of 27", "–")]
    for attempt, rows in by_attempt("test").items():
        if attempt == "prompt":
            hits = sum(row["reached"] for row in rows)
            lines.append(("prompt", "–", "–", len(rows), f"{hits} of {len(rows)}", "–"))
    for attempt, rows in by_attempt("search").items():
        known = measured(attempt)
        start = known[(0.0,) * len(_knobs(attempt))]
        hoped = sum(best_of(start, known, wanted)[1] for wanted in COMBINATIONS)
        tested = by_attempt("test").get(attempt, [])
        hits = f"{sum(row['reached'] for row in tested)} of 27" if tested else "–"
        seconds = sum(row["cpu_seconds"] for row in rows)
        lines.append((attempt, len(rows), f"{hoped} of 27", len(tested), hits, f"{seconds:.0f}"))
    return markdown("Combinations reached", head, lines)


def _holds(now: Tables, base: Tables, wanted: Wanted) -> bool:
    return all(
        reached(share(now[d], level), share(base[d], level))
        for d, level in zip(DOMAINS, wanted, strict=True)
    )


def _each() -> str:
    """Return shares at the wanted levels of every combination that was tested."""
    tested = {a: {tuple(r["wanted"]): r for r in rows} for a, rows in by_attempt("test").items()}
    names = [a for a, rows in tested.items() if any(row["reached"] for row in rows.values())]
    head = (" / ".join(DOMAINS), *names)
    lines = []
    for wanted in COMBINATIONS:
        cells = [_cell(tested[name].get(wanted), wanted) for name in names]
        if any(cell != "–" for cell in cells):
            lines.append((" / ".join(wanted), *cells))
    return markdown("Shares at the wanted levels, test questions", head, lines)


def _cell(row: Mapping[str, object] | None, wanted: Wanted) -> str:
    """Return the shares in the domains that were measured; bold where all are reached."""
    if row is None:
        return "–"
    tables = tables_of(row)
    said = " / ".join(
        f"{share(tables[d], level).value:.0%}"
        for d, level in zip(DOMAINS, wanted, strict=True)
        if d in tables
    )
    return f"**{said}**" if row["reached"] else said


def _shares() -> str:
    head = ("knob", "λ", *(f"{domain}: {', '.join(LEVELS)}" for domain in DOMAINS))
    lines = []
    tested = by_attempt("test")
    for attempt in (attempt for attempt in by_attempt("search") if attempt in tested):
        known, knobs = measured(attempt), _knobs(attempt)
        for k, knob in enumerate(knobs):
            alone = [row for row in known if not any(row[:k] + row[k + 1 :])]
            for row in sorted(alone):
                cells = (
                    " / ".join(f"{share(known[row][d], level).value:.0%}" for level in LEVELS)
                    for d in DOMAINS
                )
                lines.append((f"{attempt}: {knob}", f"{row[k]:+g}", *cells))
    return markdown("Each knob alone, search questions", head, lines)


def _costs() -> str:
    head = ("what", "CPU seconds")
    return markdown("Costs of levels", head, list(_cost_lines()))


def _cost_lines() -> Iterator[tuple[str, str]]:
    made = by_attempt("make", "kind")
    for kind, rows in made.items():
        own = fmean(row["cpu_seconds"] for row in rows)
        many = "all vectors from" if rows[0]["domain"] == "all" else "a vector from"
        yield f"`{kind}`: {many} {rows[0]['pairs']} pairs", f"{own:.0f}"
    tuned = fmean(row["cpu_seconds"] / row["pairs"] for row in made["plain"])
    pairs = sum(row["pairs"] for row in made["plain"])
    yield f"joint tuning for one combination, estimated from {pairs} pairs", f"{tuned * pairs:.0f}"
    yield "joint tuning for all 27, estimated", f"{27 * tuned * pairs:.0f}"
    for attempt, rows in by_attempt("search").items():
        total = sum(row["cpu_seconds"] for row in rows)
        yield f"search for all 27 at once, {attempt}", f"{total:.0f}"
    tests = {"unsteered": found(stage="test", attempt="unsteered"), **by_attempt("test")}
    for attempt, rows in tests.items():
        asked = sum(len(table) for row in rows for table in row["scores"].values())
        tokens = fmean(row["prompt_tokens"] for row in rows) if rows else 0.0
        if asked:
            seconds = sum(row["cpu_seconds"] for row in rows) / asked
            yield (
                f"a question with three answers, {attempt}, {tokens:.0f} prompt tokens",
                (f"{seconds:.2f}"),
            )


def _knobs(attempt: str) -> tuple[str, ...]:
    return tuple(found(stage="search", attempt=attempt)[0]["setting"])
