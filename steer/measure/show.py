"""The cards of a sweep and of answers by level."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, get_args

from steer.errors import SelectionError
from steer.measure.data import Answers, Likelihood
from steer.show.card import Card, Curves, Point, number
from steer.show.rows import table_of

if TYPE_CHECKING:
    from steer.measure.result import Sweep

_SHOWN = 20  # rows shown
_READ = 2000  # settings that curves are drawn of
_TEXT = 72


def sweep_card(sweep: "Sweep") -> Card:
    """Return the card of a sweep: what was measured against coefficients, and the best setting."""
    likelihood = sweep.measure in get_args(Likelihood)
    how = f" ({sweep.reduce} log-probability)" if likelihood else ""
    said = f"Sweep of {len(sweep)} settings: {sweep.measure}{how}, {sweep.way}"
    rows = sweep.rows
    if not rows:
        return Card(said)
    facts = [("domains", ", ".join(sweep.domains))]
    names = [name for numbers in sweep.measured[0].values() for name in numbers if name != "n"]
    drawn = next((n for n in ("accuracy", "value", *names) if n in names), None)
    if drawn == "accuracy":  # of which more is better
        with suppress(SelectionError):  # it is finite nowhere
            facts.append(("best", _setting(sweep.best(drawn))))
    lost = sum(any(x != x for n in m.values() for x in n.values()) for m in sweep.measured)
    if lost:
        why = ": the model overflows there" if likelihood else ""
        facts.append(("not finite", f"{lost} settings{why}"))
    curves = _curves(sweep, drawn) if drawn else ()
    return Card(said, tuple(facts), (*curves, table_of(rows, shown=_SHOWN, none="own")))


def answers_card(answers: Answers) -> Card:
    """Return the card of prompts with reference answers."""
    levels = ", ".join(answers.answers)
    first = [("prompt", _short(answers.prompts[0]))]
    first += [(level, _short(texts[0])) for level, texts in list(answers.answers.items())[:12]]
    said = f"Answers: {len(answers.prompts)} prompts, {len(answers.answers)} levels"
    return Card(said, (("levels", levels), *first))


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
    columns = zip(*(s.coefficients for s in settings), strict=True)
    varying = [k for k, c in enumerate(columns) if len({*c}) > 1]
    together = all(len({s.coefficients[k] for k in varying}) <= 1 for s in settings)
    if not varying or not together:
        return ()
    series: dict[str, list[Point]] = {}
    layers, scopes = ({getattr(s, kind) for s in settings} for kind in ("layer", "scope"))
    for setting, measured in zip(settings, sweep.measured[:_READ], strict=True):
        for on, numbers in measured.items():
            words = [on] * (len(measured) > 1) + [f"layer {setting.layer}"] * (len(layers) > 1)
            words += [str(setting.scope)] * (len(scopes) > 1)
            at, up = setting.coefficients[varying[0]], float(numbers[name])
            series.setdefault(" ".join(words), []).extend([(at, up)] if up == up else [])
    along = ", ".join(sweep.domains[k] for k in varying)
    ordered = {key: tuple(sorted(points)) for key, points in series.items()}
    return (Curves(name, f"coefficient of {along}", ordered, 0.0),)


def _short(text: object) -> str:
    line = repr(text if isinstance(text, str) else str(text))
    return line if len(line) <= _TEXT else f"{line[: _TEXT - 1]}…"
