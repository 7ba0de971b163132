"""The card of a sweep: what was measured against the coefficients, and the best setting."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, get_args

from steer.errors import SelectionError
from steer.measure.measures import Answers, Likelihood
from steer.show.card import Card, Curves, Point, number
from steer.show.rows import table_of

if TYPE_CHECKING:
    from steer.measure.result import Sweep

_SHOWN = 20  # rows shown
_READ = 2000  # settings that curves are drawn of
_FIRST = ("accuracy", "value")  # what is drawn if it was measured, else the first number
_TEXT = 72


def sweep_card(sweep: "Sweep") -> Card:
    """Return the card of a sweep.

    Args:
        sweep: The sweep.
    """
    likelihood = sweep.measure in get_args(Likelihood)
    how = f" ({sweep.reduce} log-probability)" if likelihood else ""
    said = f"Sweep of {len(sweep)} settings: {sweep.measure}{how}, {sweep.way}"
    if not sweep.settings:
        return Card(said)
    rows = sweep.rows
    facts = [("domains", ", ".join(sweep.domains))]
    name = _drawn(rows[0], sweep.domains) if rows else None
    if name == "accuracy":  # of which more is better
        with suppress(SelectionError):  # it is finite nowhere
            facts.append(("best", _setting(sweep.best(name))))
    lost = sum(any(x != x for n in m.values() for x in n.values()) for m in sweep.measured)
    if lost:
        why = ": the model overflows there" if likelihood else ""
        facts.append(("not finite", f"{lost} settings{why}"))
    curves = _curves(sweep, name) if name else ()
    table = table_of(rows, shown=_SHOWN, none="own")
    return Card(said, tuple(facts), (*curves, table))


def answers_card(answers: Answers) -> Card:
    """Return the card of prompts with reference answers.

    Args:
        answers: Prompts and answers.
    """
    levels = ", ".join(answers.answers)
    first = [("prompt", _short(answers.prompts[0]))]
    first += [(level, _short(texts[0])) for level, texts in list(answers.answers.items())[:12]]
    said = f"Answers: {len(answers.prompts)} prompts, {len(answers.answers)} levels"
    return Card(said, (("levels", levels), *first))


def _drawn(row: dict[str, Any], domains: tuple[str, ...]) -> str | None:
    """Return the name of the number that is drawn."""
    own = {"layer", "scope", "on", "n", *(f"coefficient.{d}" for d in domains)}
    names = [name for name in row if name not in own]
    return next((n for n in _FIRST if n in names), names[0] if names else None)


def _setting(best: dict[str, Any]) -> str:
    said = []
    for name, value in best.items():
        if isinstance(value, dict):
            reached = ", ".join(f"{on} {number(v)}" for on, v in value.items())
            said.append(f"{name} {reached}")
        elif value is not None:
            said.append(f"{name.removeprefix('coefficient.')} {number(value)}")
    return ", ".join(said)


def _curves(sweep: "Sweep", name: str) -> tuple[Curves, ...]:
    """Return one curve for each domain of the data and layer, where one coefficient varies."""
    settings = sweep.settings[:_READ]
    varying = [
        k for k in range(len(sweep.domains)) if len({s.coefficients[k] for s in settings}) > 1
    ]
    together = all(len({s.coefficients[k] for k in varying}) <= 1 for s in settings)
    if not varying or not together:
        return ()
    series: dict[str, list[Point]] = {}
    layers, scopes = ({getattr(s, kind) for s in settings} for kind in ("layer", "scope"))
    for setting, measured in zip(settings, sweep.measured[:_READ], strict=True):
        for on, numbers in measured.items():
            words = [on] if len(measured) > 1 else []
            words += [f"layer {setting.layer}"] if len(layers) > 1 else []
            words += [str(setting.scope)] if len(scopes) > 1 else []
            at, up = setting.coefficients[varying[0]], float(numbers[name])
            series.setdefault(" ".join(words), []).extend([(at, up)] if up == up else [])
    along = ", ".join(sweep.domains[k] for k in varying)
    ordered = {key: tuple(sorted(points)) for key, points in series.items()}
    return (Curves(name, f"coefficient of {along}", ordered, 0.0),)


def _short(text: object) -> str:
    line = repr(text if isinstance(text, str) else str(text))
    return line if len(line) <= _TEXT else f"{line[: _TEXT - 1]}…"
