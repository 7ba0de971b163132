"""The card of a vector: where it acts, how long it is there, and where it comes from."""

import math
from collections.abc import Mapping

from steer.algebra._cards.gates import gate_fact
from steer.algebra._cards.weights import (
    Weighed,
    cost_of,
    kinds_of,
    norm_of,
    numbers_in,
    weighed_table,
)
from steer.algebra._provenance import (
    ERROR,
    MIN_PAIRS,
    LayerStats,
    ModelInfo,
    Provenance,
    Tuning,
    noisy_layers,
)
from steer.algebra._site import Residual, Weight
from steer.algebra._term import LowRank, Term, tensors
from steer.algebra._vector import Vector
from steer.show import Bars, Card
from steer.show._card import Block, Cells, cut_table, number, ranges

_BUDGET = 2**28  # numbers of weight terms gone through to print a vector
_FOLDED = 400  # rows that are folded up in HTML
_ELSEWHERE = ("warnings", "claim")  # arguments of a provenance that are not printed as such
_LAYER_HEAD = ("layer", "norm", "relative", "error/norm", "split-half")


def vector_card(vector: Vector) -> Card:
    """Return a vector's card.

    Norms of weight terms are taken of at most 2**28 numbers, which is a tenth of a second; a larger
    vector shows its shapes, and says how to take them.
    """
    blocks: list[Block] = []
    notes = _warnings(vector)
    if vector.layers:
        blocks += _layers(vector)
    weights = {s.name: t for s, t in vector.terms.items() if isinstance(s, Weight)}
    facts = _facts(vector)
    if weights:
        size = sum(map(numbers_in, weights.values()))
        taken = sum(map(cost_of, weights.values())) <= _BUDGET
        rows = [_weighed(name, term, taken=taken) for name, term in weights.items()]
        blocks += [*kinds_of(rows), weighed_table(rows)]
        total = math.hypot(*(row.size for row in rows))
        facts.append(("weights", f"{size:,} numbers{f', norm {total:.4g}' if taken else ''}"))
        if not taken:
            notes.append("Norms are not taken of so many numbers to print them: v.weight.norm().")
    return Card(title(vector), tuple(facts), tuple(blocks), tuple(notes))


def _warnings(vector: Vector) -> list[str]:
    """Return what was wrong with the pairs of a vector, and at which layers it is mostly noise."""
    notes = [f"Warning: {sentence}." for sentence in vector.provenance.warnings]
    norms = {layer: norm_of(vector.terms[Residual(layer)]) for layer in vector.layers}
    noisy = noisy_layers(vector.stats, norms)
    if noisy and vector.provenance.pairs >= MIN_PAIRS:
        notes.append(f"Warning: error/norm is above {ERROR:g} at {_layers_named(noisy)}.")
    return notes


def _layers_named(layers: list[int]) -> str:
    return f"layer{'s' if len(layers) > 1 else ''} {ranges(layers)}"


def title(vector: Vector) -> str:
    """Return one line: method, domain, number of pairs."""
    made = vector.provenance
    words = ["Vector", made.method]
    words += [made.domain] if made.domain else []
    words += [f"{made.pairs} pairs"] if made.pairs else []
    return " · ".join(words)


def model_fact(model: ModelInfo) -> str:
    """Return what identifies a model, in a line."""
    revision = f", revision {model.revision}" if model.revision else ""
    size = f"{model.n_layers} layers of width {model.d_model}"
    return f"{model.model_id} ({size}{revision}), config {model.config[:8]}"


def _facts(vector: Vector) -> list[tuple[str, str]]:
    made = vector.provenance
    facts = [("model", model_fact(made.model))] if made.model else []
    facts.append(("sites", sites_fact(vector)))
    if vector.tuning:
        facts.append(("tuning", tuning_fact(vector.tuning)))
    if vector.gate:
        facts.append(("gate", gate_fact(vector.gate)))
    return facts + _made(made)


def _made(made: Provenance) -> list[tuple[str, str]]:
    facts = []
    if made.arguments:
        named = sorted(item for item in made.arguments.items() if item[0] not in _ELSEWHERE)
        said = ", ".join(f"{name}={_brief(value)}" for name, value in named)
        facts.append(("made", f"{made.method}({said})"))
    if made.pairs_fingerprint:
        facts.append(("pairs", f"{made.pairs}, SHA-256 {made.pairs_fingerprint[:8]}…"))
    if made.license:
        facts.append(("license", made.license))
    if made.version:
        facts.append(("version", made.version))
    return facts


def _brief(value: object) -> str:
    if isinstance(value, Mapping):
        return repr(value["model_id"]) if "model_id" in value else f"{{{len(value)} items}}"
    if isinstance(value, tuple) and len(value) > 4:
        return f"({value[0]!r}, …, {value[-1]!r})"
    return f"{value:.4g}" if isinstance(value, float) else repr(value)


def sites_fact(vector: Vector) -> str:
    """Return how many sites of which kind a vector has, and its dtypes."""
    weights = len(vector) - len(vector.layers)
    kinds = []
    if vector.layers:
        kinds.append(f"{len(vector.layers)} residual, d_model {vector.d_model}")
    if weights:
        kinds.append(f"{weights} weight{'s' if weights > 1 else ''}")
    dtypes = {
        str(tensor.dtype).removeprefix("torch.")
        for term in vector.terms.values()
        for tensor in tensors(term).values()
    }
    return f"{' + '.join(kinds)}, {'/'.join(sorted(dtypes))}"


def tuning_fact(tuning: Tuning) -> str:
    """Return the setting that was chosen for a vector, in a line."""
    place = "all sites" if tuning.layer is None else f"layer {tuning.layer}"
    words = [f"{place}, coefficient {tuning.coefficient:g}"]
    words.append(f"{tuning.operator} on {tuning.scope}")
    if tuning.score is not None:
        before = "" if tuning.unsteered is None else f", {tuning.unsteered:.1%} unsteered"
        words.append(f"accuracy {tuning.score:.1%}{before}")
    if tuning.kl is not None:
        words.append(f"KL {tuning.kl:.3g} nats/token")
    return ", ".join(words)


def _layers(vector: Vector) -> list[Block]:
    """Return pictures over the layers, and their table; the tuned layer has a star."""
    chosen = vector.tuning.layer if vector.tuning else None
    layers = vector.layers
    norms = [norm_of(vector.terms[Residual(layer)]) for layer in layers]
    stats = [vector.stats.get(layer, LayerStats()) for layer in layers]
    columns = [_measured(norm, found) for norm, found in zip(norms, stats, strict=True)]
    names = tuple("embed" if layer == -1 else str(layer) for layer in layers)
    marked = layers.index(chosen) if chosen in layers else None
    rows: list[Cells] = [
        (f"{name}*" if k == marked else name, f"{norm:.4g}", *map(_digits, measured))
        for k, (name, norm, measured) in enumerate(zip(names, norms, columns, strict=True))
    ]
    table = cut_table(_LAYER_HEAD, rows, keep=marked, folded=_FOLDED)
    captions = ("relative norm ‖v‖/‖h‖ by layer", "", "split-half cosine by layer")
    pictures = [Bars("norm by layer", names, tuple(norms), marked)]
    for caption, values in zip(captions, zip(*columns, strict=True), strict=True):
        known = tuple(math.nan if v is None else v for v in values)
        if caption and any(map(math.isfinite, known)):
            pictures.append(Bars(caption, names, known, marked))
    return [*pictures, table]


def _measured(norm: float, stats: LayerStats) -> tuple[float | None, float | None, float | None]:
    relative = norm / stats.residual_norm if stats.residual_norm else None
    error = None if stats.standard_error is None or not norm else stats.standard_error / norm
    return relative, error, stats.split_half_cosine


def _digits(value: float | None) -> str:
    return number(None) if value is None else f"{value:.3f}"


def _weighed(name: str, term: Term, *, taken: bool) -> Weighed:
    form = f"rank {term.rank}" if isinstance(term, LowRank) else "dense"
    return Weighed(name, tuple(term.shape), form, norm_of(term) if taken else None)
