"""The card of activations: how many pairs, how well their halves agree, how large differences are.

What is shown is computed when it is shown, of at most 2**20 numbers of each kind: where there are
more, of evenly spaced layers.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from steer.algebra._cards.vectors import model_fact
from steer.extract._moments import Moments
from steer.show import Card, Curves, Table
from steer.show._card import Cells, ranges
from steer.show._chart import Point

if TYPE_CHECKING:
    from steer.extract._activations import Activations

_BUDGET = 2**20  # entries [layer d_model] that are read
_ROWS = 24
_HEAD = ("domain", "position", "pairs", "split-half", "‖difference‖/‖h‖", "error/norm")


def activations_card(activations: "Activations") -> Card:
    """Return the card of recorded activations."""
    moments, layers, model = activations.moments, activations.layers, activations.model
    shown = dict(list(moments.items())[:_ROWS])
    width = next(iter(moments.values())).second.shape[-1] if moments else 0
    most = max(_BUDGET // max(len(shown) * width, 1), 1)
    step = max(1, -(-len(layers) // most))
    taken = range(step // 2, len(layers), step)
    found = {key: _measured(m, taken) for key, m in shown.items()}
    rows = [_row(key, moments[key].count, columns) for key, columns in found.items()]
    names = {key: _name(key, moments) for key in found}
    curves = []
    for k, caption in enumerate(("split-half cosine", "‖difference‖/‖h‖")):
        series = {names[key]: _points(layers, taken, found[key][k]) for key in found}
        curves.append(Curves(caption, "layer", series))
    first = next((position for _, position in moments), None)
    pairs = sum(m.count for (_, position), m in moments.items() if position == first)
    said = f"{pairs} pairs · layers {ranges(layers)} · d_model {width} · {activations.path}"
    facts = [("model", model_fact(model))] if model else []
    if step > 1:
        facts.append(("shown of", f"{len(taken)} of {len(layers)} layers, evenly spaced"))
    table = Table(_HEAD, tuple(rows), words=2, left_out=len(moments) - len(shown),
                  caption="median over layers")  # fmt: skip
    notes = tuple(f"Warning: {problem}." for problem in activations.warnings)
    return Card(f"Activations · {said}", tuple(facts), (*curves, table), notes)


_Columns = tuple[list[float], list[float], list[float]]


def _measured(m: Moments, taken: Sequence[int]) -> _Columns:
    """Return split-half cosine, relative size and relative error at some layers."""
    rows = list(taken)
    mean_chosen, mean_rejected, second, norm, even, odd = (
        tensor[rows] for tensor in (m.mean_chosen, m.mean_rejected, m.second, m.norm, *m.halves)
    )
    part = Moments(m.count, mean_chosen, mean_rejected, second, (even, odd), m.half_counts, norm)
    size = part.difference.norm(dim=-1)
    error = part.standard_error.norm(dim=-1)
    columns = (part.split_half_cosine, size / norm, error / size)
    cosine, relative, errors = (column.tolist() for column in columns)
    return cosine, relative, errors


def _row(key: tuple[str | None, str], count: int, columns: _Columns) -> Cells:
    domain, position = key
    return (domain or "–", position, str(count), *(_middle(column) for column in columns))


def _middle(values: Sequence[float]) -> str:
    finite = sorted(v for v in values if math.isfinite(v))
    return f"{finite[(len(finite) - 1) // 2]:.3f}" if finite else "–"


def _points(layers: Sequence[int], taken: Sequence[int], values: list[float]) -> tuple[Point, ...]:
    return tuple((float(layers[k]), v) for k, v in zip(taken, values, strict=True))


def _name(key: tuple[str | None, str], moments: Mapping[tuple[str | None, str], Moments]) -> str:
    domains, positions = ({k[i] for k in moments} for i in (0, 1))
    words = [str(key[0] or "–")] if len(domains) > 1 else []
    words += [key[1]] if len(positions) > 1 else []
    return " ".join(words)
