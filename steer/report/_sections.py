"""The section of each kind of result. Another one is a function here and a line in the table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from steer.errors import SelectionError
from steer.measure import Baselines, OffTarget, Reliability, Sweep
from steer.report._costs import Costs
from steer.report._examples import Examples
from steer.report._setup import Setup
from steer.selection import Selection
from steer.show import Card, Result, Table
from steer.show._html import card_body
from steer.show._markup import escaped
from steer.show._rows import table_of
from steer.view import DoseResponse, View, interference


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a report.

    Args:
        title: Its heading.
        html: Its body, escaped already.
    """

    title: str
    html: str


def sections_of(result: object) -> tuple[Section, ...]:
    """Return the sections of a section, a result, or results of one kind by name."""
    if isinstance(result, Section):
        return (result,)
    if not isinstance(result, Mapping):
        return tuple(Section(title, _html(title, make(result))) for title, make in _makers(result))
    kinds = {type(one) for one in result.values()}
    if len(kinds) != 1:
        raise _unknown(f"results by name of {sorted(kind.__name__ for kind in kinds)}")
    found: dict[str, str] = {}
    for name, one in result.items():
        for title, make in _makers(one):
            found[title] = (
                found.get(title, "") + f"<h3>{escaped(name)}</h3>{_html(title, make(one))}"
            )
    return tuple(Section(title, html) for title, html in found.items())


def _html(heading: str, card: Card) -> str:
    said = card.title if card.title != heading else ""
    note = f"<p class='steer-note'>{escaped(said)}</p>" if said else ""
    return f"<div class='steer-card'>{note}{card_body(card, whole=True)}</div>"


def _card(result: Result) -> Card:
    return result._card()  # what a result shows everywhere


def _charts(view: View) -> Card:
    """Return the card of a view with its table folded up."""
    card = _card(view)
    blocks = (replace(b, folded=True) if isinstance(b, Table) else b for b in card.blocks)
    return replace(card, blocks=tuple(blocks))


def _sweep(result: Sweep) -> Card:
    """Return all charts of a sweep, and its table."""
    charts = result.charts
    said = "" if charts else "In no setting is one domain turned alone, with finite numbers."
    return Card(said, (), (*charts, table_of(result.rows, folded=2000, folded_up=True)))


def _off_target(result: OffTarget) -> Card:
    card = _charts(interference(result, measure="preference accuracy"))
    table = table_of(result.rows, folded_up=True)
    return Card("", (), (card.blocks[0], table))


def _baselines(result: Baselines) -> Card:
    verdict = (
        "The gains over the unsteered model and every random direction lie above 0."
        if result.beats_unsteered_and_random
        else "Not every gain over the unsteered model and random directions lies above 0."
    )
    return replace(_card(result), notes=(verdict,))


def _costs(result: Costs) -> Card:
    """Return the chart, and the settings on the front and the chosen one by rising KL."""
    if not result.measured:
        return Card("KL was not measured.", (), (table_of(result.rows, folded_up=True),))
    rows = [row for row in result.rows if row["on the front"] or row["chosen"]]
    rows.sort(key=lambda row: float(row["KL"]))
    said = f"{len(result.settings)} settings; no other is better than those on the front"
    return Card(said, (), (*result.panels.values(), table_of(rows, folded_up=True)))


# result, title, function from the result to its card
SECTIONS: tuple[tuple[type, str, Callable[[Any], Card]], ...] = (
    (Selection, "Choice", _card),
    (Sweep, "Dose-response", _sweep),
    (DoseResponse, "Dose-response", _charts),
    (OffTarget, "Interference", _off_target),
    (Costs, "Side effects", _costs),
    (Baselines, "Baselines", _baselines),
    (Reliability, "Reliability", _card),
    (Examples, "Examples", _card),
    (Setup, "Provenance", _card),
)


def _makers(result: object) -> list[tuple[str, Callable[[Any], Card]]]:
    found = [(title, make) for kind, title, make in SECTIONS if isinstance(result, kind)]
    if not found and isinstance(result, Result):
        return [(result.title, _charts if isinstance(result, View) else _card)]
    if not found:
        raise _unknown(type(result).__name__)
    return found


def _unknown(found: str) -> SelectionError:
    kinds = ", ".join(dict.fromkeys(kind.__name__ for kind, _, _ in SECTIONS))
    return SelectionError(
        "a report has no section for this",
        found=found,
        expected=f"a Section, {kinds}, another result with rows, or results of one kind by name",
        do="pass what the measuring functions returned",
    )
