"""The cards of selections: what was chosen, what it costs, and what it does on unseen pairs."""

from typing import TYPE_CHECKING

from steer.show.card import Bar, Card, Curves, Table, scale
from steer.show.rows import share_row, table_of

if TYPE_CHECKING:
    from steer.choice import Choice
    from steer.search.result import Selection

_DOMAINS = 60


def selection_card(found: "Selection") -> Card:
    """Return the card of a selection.

    Args:
        found: The selection.
    """
    chosen = dict(list(found.coefficients.items())[:_DOMAINS])
    low, high = scale(list(chosen.values()))
    said = ", ".join(f"{name}={c:g}" for name, c in chosen.items())
    settings = Table(
        ("domain", "coefficient", ""),
        tuple((name, f"{c:+g}", Bar(c, low, high)) for name, c in chosen.items()),
        left_out=len(found.coefficients) - len(chosen),
    )
    tests = []
    for name, share in list(found.test.items())[:_DOMAINS]:
        of = f"of {share.n}"
        tests.append(share_row(f"{name} steered", share.value, share.interval, of))
        tests += [
            share_row(f"{name} {kind}", s.value, s.interval, of)
            for kind, s in found.baselines.get(name, {}).items()
        ]
    head = ("on unseen pairs", "preference accuracy", "", "pairs")
    beside = Table(head, tuple(tests), words=3)
    front = [(t.kl, t.objective) for t in found.front if t.kl is not None]
    curve = Curves(
        "best objective within KL", "KL, nats per token", {"": tuple(front)}, found.best.kl
    )
    notes = [found.why, *(f"{name}: {e}" for name, e in list(found.evidence.items())[:_DOMAINS])]
    if not found.works:
        notes.append("Not in every domain are the vectors shown to do more than chance.")
    trials = table_of(found.rows, shown=0, caption="settings tried")
    return Card(
        f"Selection ({found.how}): {said}", (), (settings, beside, curve, trials), tuple(notes)
    )


def choice_card(choice: "Choice") -> Card:
    """Return the card of a choice.

    Args:
        choice: The choice.
    """
    best, both = choice.best, choice.back is not None
    mean, larger = (", mean of both ends", ", larger of both ends") if both else ("", "")
    facts = [
        ("validation", f"{best.accuracy:.1%}{mean}, {len(choice.trials)} settings tried"),
        ("KL", f"{best.kl:.3f} of {choice.kl_budget:g} nats/token{larger}"),
        ("evidence", str(choice.evidence)),
    ]
    if choice.back is not None:
        facts.append(("turned back", str(choice.back.evidence)))
    series: dict[str, list[tuple[float, float]]] = {}
    several = len({trial.candidate for trial in choice.trials}) > 1
    for trial in choice.trials:
        if trial.accuracy != trial.accuracy:  # the model overflows there
            continue
        name = f"{trial.candidate} layer {trial.layer}" if several else f"layer {trial.layer}"
        series.setdefault(name, []).append((trial.coefficient, trial.accuracy))
    own = f"{best.candidate} layer {best.layer}" if several else f"layer {best.layer}"
    named = {name: tuple(sorted(series[name])) for name in sorted(series, key=lambda n: n != own)}
    rows = [share_row("steered", choice.test.value, choice.test.interval)]
    rows += [share_row(name, s.value, s.interval) for name, s in choice.baselines.items()]
    if choice.back is not None:
        back = choice.back.steered
        rows.append(share_row("turned back", back.value, back.interval))
    said = f"{best.candidate} at layer {best.layer}, coefficient {best.coefficient:g}"
    verdict = "The vector is not shown to do more than the baselines."
    if choice.test.n < choice.evidence.needed:
        verdict = "Too few test pairs to tell whether the vector does more than the baselines."
    works = () if choice.works else (verdict,)
    tried = "settings tried" + (": means of both ends, and the larger KL" if both else "")
    on = f"preference accuracy on {choice.test.n} unseen test pairs ({choice.reduce} log-prob.)"
    return Card(
        f"Choice: {said}",
        tuple(facts),
        (
            Table(("", "accuracy", ""), tuple(rows), words=3, caption=on),
            Curves(f"accuracy on validation pairs{mean}", "coefficient", named, best.coefficient),
            table_of(choice.rows, shown=0, caption=tried),
        ),
        works,
    )
