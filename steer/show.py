"""How a vector prints: a text for the terminal, and HTML with a small picture for notebooks."""

from html import escape

from steer.gate import DomainGate
from steer.provenance import LayerStats, Tuning
from steer.site import Residual, Site
from steer.term import LowRank, tensors
from steer.vector import Vector

_SHOWN = 6  # rows at each end of a long table
_HEIGHT = 48.0  # of the picture, in pixels
_STEP = 10.0  # from bar to bar
_LAYER_HEAD = ["layer", "norm", "relative", "error/norm", "split-half"]
_WEIGHT_HEAD = ["weight", "term", "shape", "norm"]


def vector_text(vector: Vector) -> str:
    """Return a vector's description for a terminal.

    Args:
        vector: The vector.

    Returns:
        Lines without a final line break: how it was made, what it was tuned for, one row for
        each layer and each weight site; long tables are shortened in the middle.
    """
    lines = [title(vector)]
    lines += [f"  {name:<8}{value}" for name, value in _facts(vector)]
    for table in (_layer_table(vector), _weight_table(vector)):
        if len(table) > 1:
            lines += _aligned(table)
    return "\n".join(lines)


def vector_html(vector: Vector) -> str:
    """Return a vector's description as HTML, with a bar for the norm of each layer.

    Args:
        vector: The vector.
    """
    facts = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in _facts(vector)
    )
    parts = [f"<div><b>{escape(title(vector))}</b><table>{facts}</table>", _bars(vector)]
    for table in (_layer_table(vector), _weight_table(vector)):
        if len(table) > 1:
            head, *rows = table
            cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
            body = "".join(
                "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
                for row in rows
            )
            parts.append(f"<table><tr>{cells}</tr>{body}</table>")
    return "".join(parts) + "</div>"


def title(vector: Vector) -> str:
    """Return one line: method, domain, number of pairs."""
    made = vector.provenance
    words = ["Vector", made.method]
    words += [made.domain] if made.domain else []
    words += [f"{made.pairs} pairs"] if made.pairs else []
    return " · ".join(words)


def _facts(vector: Vector) -> list[tuple[str, str]]:
    made = vector.provenance
    facts = []
    if model := made.model:
        revision = f", revision {model.revision}" if model.revision else ""
        size = f"{model.n_layers} layers of width {model.d_model}"
        facts.append(("model", f"{model.model_id} ({size}{revision})"))
    facts.append(("sites", _sites(vector)))
    if vector.tuning:
        facts.append(("tuning", _tuning(vector.tuning)))
    if vector.gate:
        facts.append(("gate", _gate(vector.gate)))
    if made.license:
        facts.append(("license", made.license))
    return facts


def _sites(vector: Vector) -> str:
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


def _tuning(tuning: Tuning) -> str:
    words = [f"layer {tuning.layer}, coefficient {tuning.coefficient:g}"]
    words.append(f"{tuning.operator} on {tuning.scope}")
    if tuning.score is not None:
        words.append(f"accuracy {tuning.score:.1%}")
    if tuning.kl is not None:
        words.append(f"KL {tuning.kl:.3g} nats/token")
    return ", ".join(words)


def _gate(gate: DomainGate) -> str:
    background = len(gate.centroids) - len(gate.domains)
    words = [" | ".join(gate.domains) + (f" (+ {background} background)" if background else "")]
    words.append(f"read at layer {gate.layer}, margin {gate.margin:g}")
    if gate.accuracy is not None:
        words.append(f"routing accuracy {gate.accuracy:.1%}")
    return ", ".join(words)


def _layer_table(vector: Vector) -> list[list[str]]:
    """Return the rows of the table of layers; the tuned layer has a star."""
    chosen = vector.tuning.layer if vector.tuning else None
    layers = vector.layers
    shown = _ends(len(layers), keep=layers.index(chosen) if chosen in layers else None)
    gap = ["…"] * len(_LAYER_HEAD)
    rows = [gap if index is None else _layer_row(vector, layers[index], chosen) for index in shown]
    return [_LAYER_HEAD, *rows]


def _layer_row(vector: Vector, layer: int, chosen: int | None) -> list[str]:
    stats = vector.stats.get(layer, LayerStats())
    norm = vector[layer].norm()
    error = None if stats.standard_error is None or not norm else stats.standard_error / norm
    name = "embed" if layer == -1 else str(layer)
    measured = (vector.relative_norm(layer), error, stats.split_half_cosine)
    return [name + ("*" if layer == chosen else ""), f"{norm:.4g}", *map(_digits, measured)]


def _weight_table(vector: Vector) -> list[list[str]]:
    sites = [site for site in vector.sites if not isinstance(site, Residual)]
    gap = ["…"] * len(_WEIGHT_HEAD)
    rows = [gap if i is None else _weight_row(vector, sites[i]) for i in _ends(len(sites))]
    return [_WEIGHT_HEAD, *rows]


def _weight_row(vector: Vector, site: Site) -> list[str]:
    term = vector.terms[site]
    kind = f"rank {term.rank}" if isinstance(term, LowRank) else "dense"
    shape = "×".join(map(str, term.shape)) or "scalar"
    return [str(site).removeprefix("weight:"), kind, shape, f"{vector[site].norm():.4g}"]


def _ends(count: int, keep: int | None = None) -> list[int | None]:
    """Return the rows shown of a table; None stands for rows left out."""
    wanted = {i for i in range(count) if i < _SHOWN or i >= count - _SHOWN or i == keep}
    if count - len(wanted) <= 1:
        return list(range(count))
    shown: list[int | None] = []
    for i in range(count):
        if i in wanted:
            shown.append(i)
        elif shown[-1] is not None:
            shown.append(None)
    return shown


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for first, *rest in table:
        cells = [f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  " + "  ".join([f"{first:<{widths[0]}}", *cells]).rstrip())
    return lines


def _bars(vector: Vector) -> str:
    """Return an SVG with a bar for the norm of each layer, the tuned layer filled."""
    layers = vector.layers
    norms = [vector[layer].norm() for layer in layers]
    top = max(norms, default=0.0)
    if not 0.0 < top < float("inf"):
        return ""
    chosen = vector.tuning.layer if vector.tuning else None
    bars = []
    for index, (layer, norm) in enumerate(zip(layers, norms, strict=True)):
        height = _HEIGHT * norm / top
        bars.append(
            f"<rect x='{index * _STEP:g}' y='{_HEIGHT - height:.1f}' width='{_STEP - 2:g}' "
            f"height='{height:.1f}' fill-opacity='{1.0 if layer == chosen else 0.5:g}'>"
            f"<title>{Residual(layer)}: norm {norm:.4g}</title></rect>"
        )
    return (
        f"<svg role='img' aria-label='norm by layer' width='{len(norms) * _STEP:g}' "
        f"height='{_HEIGHT:g}' fill='currentColor'>{''.join(bars)}</svg>"
    )
