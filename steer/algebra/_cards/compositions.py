"""The cards of a composition and of its parts: what acts where, and how strongly."""

from steer.algebra._cards.gates import gate_fact
from steer.algebra._cards.vectors import title, vector_card
from steer.algebra._cards.weights import norm_of
from steer.algebra._composition import Composition, Part
from steer.algebra._site import Residual
from steer.show import Bar, Card, Table
from steer.show._card import Cell
from steer.show._chart import scale

_MOST = 40  # domains shown
_FOLDED = 200
_PROMPTS = 8  # rows of coefficients shown
_PROMPTS_FOLDED = 64


def composition_card(composition: Composition) -> Card:
    """Return a composition's card."""
    facts = []
    if composition.per_row:
        facts.append(("rows", f"{len(composition.coefficients)}, one for each prompt"))
    if composition.gate is not None:
        facts.append(("gate", gate_fact(composition.gate)))
    said = f"Composition of {len(composition.parts)} domain(s), gate: {_gate(composition)}"
    return Card(said, tuple(facts), tuple(_tables(composition)))


def _gate(composition: Composition) -> str:
    gate = composition.gate
    if gate is not None:
        return f"nearest centroid at layer {gate.layer}"
    stored = any(part.vector.gate is not None for part in composition.parts.values())
    return "none, though one is stored" if stored else "none"


def _tables(composition: Composition) -> list[Table]:
    coefficients = composition.coefficients[: _PROMPTS + _PROMPTS_FOLDED].tolist()
    low, high = scale([c for row in coefficients for c in row])
    rows: list[tuple[Cell, ...]] = []
    for k, (name, part) in enumerate(composition.parts.items()):
        mine: list[Cell] = ["by row", ""]
        if not composition.per_row:
            mine = [f"{coefficients[0][k]:+g}", Bar(coefficients[0][k], low, high)]
        rows.append((name, f"{part.operator} on {part.scope}", _where(part), *mine, _size(part)))
        if k == _MOST + _FOLDED:
            break
    head = ("domain", "acts", "at", "coefficient", "", "relative")
    left = max(len(composition.parts) - _MOST - _FOLDED, 0)
    rest = tuple(rows[_MOST : _MOST + _FOLDED])
    tables = [Table(head, tuple(rows[:_MOST]), 3, rest, left)]
    if composition.per_row:
        domains = composition.domains[:_MOST]
        by_row = tuple(
            (str(number), *(f"{c:+g}" for c in row[:_MOST]))
            for number, row in enumerate(coefficients)
        )
        tables.append(
            Table(
                ("row", *domains),
                by_row[:_PROMPTS],
                rest=by_row[_PROMPTS:],
                left_out=max(len(composition.coefficients) - len(coefficients), 0),
            )
        )
    return tables


def steered_card(composition: Composition, *, attached: bool) -> Card:
    """Return the card of a steering: whether it is at work, and its composition's."""
    of = composition_card(composition)
    state = "attached" if attached else "not attached"
    return Card(f"Steered({state}) · {of.title}", of.facts, of.blocks, of.notes)


def part_card(part: Part) -> Card:
    """Return the card of one domain's part: its vector's, and how it acts."""
    of = vector_card(part.vector)
    acts = ("acts", f"{part.operator} on {part.scope}")
    return Card(f"Part · {title(part.vector)}", (acts, *of.facts), of.blocks, of.notes)


def _where(part: Part) -> str:
    """Return the sites of a part in a few words."""
    vector = part.vector
    layers = vector.layers
    words = []
    if len(layers) == 1:
        words.append("embed" if layers[0] == -1 else f"layer {layers[0]}")
    elif layers:
        words.append(f"{len(layers)} layers, {layers[0]} to {layers[-1]}")
    if weights := len(vector) - len(layers):
        words.append(f"{weights} weight{'' if weights == 1 else 's'}")
    return " + ".join(words)


def _size(part: Part) -> str:
    """Return ‖v‖/‖h‖ over the layers of a part where it is known."""
    found = []
    for layer in part.vector.layers:
        stats = part.vector.stats.get(layer)
        if stats and stats.residual_norm:
            found.append(norm_of(part.vector.terms[Residual(layer)]) / stats.residual_norm)
    if not found:
        return "–"
    low, high = min(found), max(found)
    return f"{low:.3g}" if len(found) == 1 else f"{low:.3g} to {high:.3g}"
