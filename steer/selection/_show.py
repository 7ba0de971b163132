"""The card of a selection: what was chosen, what it costs, and what it does on unseen pairs."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from steer.selection._setting import front
from steer.show import Bar, Card, Curves, Series, Table
from steer.show._chart import scale
from steer.show._rows import share_row, table_of

if TYPE_CHECKING:
    from steer.selection._result import Selection

_DOMAINS = 60
_ANSWERS = 3  # answers shown before and after
_TEXT = 160


def selection_card(found: "Selection") -> Card:
    """Return the card of a selection."""
    chosen = dict(list(found.coefficients.items())[:_DOMAINS])
    low, high = scale(list(chosen.values()))
    said = ", ".join(f"{name}={c:.4g}" for name, c in chosen.items())
    settings = Table(
        ("domain", "coefficient", ""),
        tuple((name, f"{c:+.4g}", Bar(c, low, high)) for name, c in chosen.items()),
        left_out=len(found.coefficients) - len(chosen),
    )
    facts = [("chosen", found.best.name)] if found.best.name else []
    if found.kl is not None:
        said_kl = f"{found.kl:.3f} nats per token, on text not used to choose"
        if found.best.kl is not None and found.best.kl_error is not None:
            said_kl += f"; {found.best.kl:.3f} ± {found.best.kl_error:.3f} where it was calibrated"
        facts.append(("KL", said_kl))
    if found.displacement is not None:
        facts.append(("displacement", f"{found.displacement:.0%} of the stream's median norm"))
    if found.palrs is not None:
        facts.append(("PaLRS's rule", f"{found.palrs}; this setting {_gain(found)}"))
    if found.screened is not None:
        facts.append(("screen", str(found.screened)))
    table = table_of(found.rows, shown=0, caption="settings measured")
    blocks: tuple[Table | Curves, ...] = (
        settings,
        _tests(found),
        *_costs(found),
        *_answers(found),
        table,
    )
    at = f" {found.best.name}," if found.best.name else ""
    title = f"Selection ({found.strategy}):{at} {said}"
    return Card(title, tuple(facts), blocks, _notes(found))


def _gain(found: "Selection") -> str:
    """Return what the chosen setting gains on the pairs that PaLRS's is measured on."""
    gains = [result.evidence.gain * result.steered.n for result in found.held_out.values()]
    return f"{sum(gains) / sum(r.steered.n for r in found.held_out.values()):+.3f} nats"


def _tests(found: "Selection") -> Table:
    """Return the accuracies on unseen pairs, beside the baselines."""
    rows = []
    for name, result in list(found.held_out.items())[:_DOMAINS]:
        of = f"of {result.steered.n}"
        word = f"{name} " if len(found.held_out) > 1 else ""
        shares = {"steered": result.steered, **result.baselines}
        if found.back is not None:
            shares["turned back"] = found.back[name].steered
        rows += [share_row(word + kind, s.value, s.interval, of) for kind, s in shares.items()]
    head = ("on unseen pairs", "preference accuracy", "", "pairs")
    return Table(head, tuple(rows), words=3)


def cost_chart(
    objective: str,
    points: Sequence[tuple[float | None, float]],
    chosen: int | None,
    budget: float | None,
) -> Curves:
    """Return the chart of what settings reach against their KL: front, budget and choice."""

    def series(some: Iterable[int], **how: Any) -> Series:
        finite = [(kl, up) for kl, up in (points[k] for k in some) if kl is not None]
        return Series(tuple(sorted(p for p in finite if all(map(math.isfinite, p)))), **how)

    drawn = {
        "tried": series(range(len(points)), joined=False, hue=5),
        "Pareto front": series(front(points), hue=2),
    }
    if chosen is not None:
        drawn["chosen"] = series([chosen], hollow=True, hue=1)
    limit = "" if budget is None else f"budget {budget:g}"
    along = "KL(steered‖unsteered) on neutral text, nats per token"
    return Curves(objective, along, drawn, marked=budget, marked_name=limit, root=True)


def _costs(found: "Selection") -> list[Curves]:
    """Return the chart of all settings, if their KL is known."""
    if found.best.kl is None:
        return []
    points = [(t.kl, t.objective) for t in found.trials]
    at = found.trials.index(found.best)
    return [cost_chart("objective", points, at, found.limits.kl)]


def _answers(found: "Selection") -> list[Table]:
    """Return some answers before and after."""
    if found.visible is None or not found.visible.changed.hits:
        return []
    changed = [a for a in found.visible.answers if a.before != a.after][:_ANSWERS]
    rows = tuple((_short(str(a.prompt)), _short(a.before), _short(a.after)) for a in changed)
    return [Table(("prompt", "unsteered", "steered"), rows, words=3, caption="answers", texts=True)]


def _notes(found: "Selection") -> tuple[str, ...]:
    notes = [found.why]
    notes += [f"{name}: {e}" for name, e in list(found.evidence.items())[:_DOMAINS]]
    if found.back is not None:
        notes += [f"{name}, turned back: {r.evidence}" for name, r in found.back.items()]
    if backwards := [name for name, c in found.coefficients.items() if c < 0]:
        notes.append(
            f"The coefficient of {', '.join(backwards[:_DOMAINS])} is negative: the vector is used "
            "backwards."
        )
    if found.visible is not None:
        notes.append(str(found.visible))
        if found.visible.repetitive:
            notes.append(
                "The steered answers repeat themselves: the setting is too strong for fluent text. "
                "Use a smaller coefficient, or choose within a smaller KL budget."
            )
    notes += [
        f"{name}: a prompt does better ({r.baselines['prompted'].value:.0%} against "
        f"{r.steered.value:.0%} of the unseen pairs)."
        for name, r in list(found.held_out.items())[:_DOMAINS]
        if "prompted" in r.baselines and r.baselines["prompted"].value > r.steered.value
    ]
    if not found.likelihood_effect:
        notes.append("No effect on the likelihood of given answers is shown beyond chance.")
    return tuple(notes)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TEXT else f"{line[: _TEXT - 1]}…"
