"""Which result makes which section. A further section is a file with a function and a line here."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from steer.errors import SelectionError
from steer.measure import Baselines, OffTarget, Reliability, Sweep
from steer.report._html import paragraph, table, text
from steer.report._sections.baselines import baselines
from steer.report._sections.choice import choice
from steer.report._sections.dose_response import curve, sweep
from steer.report._sections.examples import Examples, examples
from steer.report._sections.interference import interference
from steer.report._sections.provenance import Setup, provenance
from steer.report._sections.reliability import reliability
from steer.report._sections.side_effects import Costs, chosen_side_effects, side_effects
from steer.selection import Selection
from steer.show import Result
from steer.view import DoseResponse

# result, title, function from the result to HTML
SECTIONS: tuple[tuple[type, str, Callable[[Any], str]], ...] = (
    (Selection, "Choice", choice),
    (Selection, "Side effects", chosen_side_effects),
    (Sweep, "Dose-response", sweep),
    (DoseResponse, "Dose-response", curve),
    (OffTarget, "Interference", interference),
    (Costs, "Side effects", side_effects),
    (Baselines, "Baselines", baselines),
    (Reliability, "Reliability", reliability),
    (Examples, "Examples", examples),
    (Setup, "Provenance", provenance),
)


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
    """Return the sections that show a result.

    Args:
        result: A section; a result of this library; or results of one kind by name. What has rows
            but no section of its own becomes a table.

    Raises:
        SelectionError: It cannot be shown, or results by name are of different kinds or none.
    """
    if isinstance(result, Section):
        return (result,)
    if not isinstance(result, Mapping):
        return tuple(Section(title, make(result)) for title, make in _makers(result))
    kinds = {type(one) for one in result.values()}
    if len(kinds) != 1:
        raise _unknown(f"results by name of {sorted(kind.__name__ for kind in kinds)}")
    made = zip(*(_makers(one) for one in result.values()), strict=True)
    return tuple(
        Section(same[0][0], _joined(zip(result.items(), same, strict=True))) for same in made
    )


def _joined(parts: Iterable[Any]) -> str:
    return "".join(f"<h3>{text(name)}</h3>{make(one)}" for (name, one), (_, make) in parts)


def _makers(result: object) -> list[tuple[str, Callable[[Any], str]]]:
    found = [(title, make) for kind, title, make in SECTIONS if isinstance(result, kind)]
    if not found and isinstance(result, Result):
        return [(result.title, lambda one: paragraph(one.title) + table(one.rows))]
    if not found:
        raise _unknown(type(result).__name__)
    return found


def _unknown(found: str) -> SelectionError:
    kinds = ", ".join(dict.fromkeys(kind.__name__ for kind, _, _ in SECTIONS))
    return SelectionError(
        "a report has no section for this",
        found=found,
        expected=f"a Section, {kinds}, another result with rows, or some of one kind by name",
        do="pass what the measuring functions returned",
    )
