"""The card of activations: how many pairs, how well their halves agree, how large differences are.

What is shown is computed when it is shown, of at most 2**20 numbers of each kind: where there are
more, of evenly spaced layers.
"""

import math
from collections.abc import Mapping, Sequence

from steer.algebra import ModelInfo
from steer.algebra._cards.vectors import model_fact
from steer.extract._moments import Moments
from steer.show import Card, Curves, Table
from steer.show._card import Cells, ranges
from steer.show._chart import Point

_BUDGET = 2**20  # entries [layer d_model] that are read
_ROWS = 24
_HEAD = ("domain", "position", "pairs", "split-half", "‖difference‖/‖h‖", "error/norm")


def activations_card(
    moments: Mapping[tuple[str | None, str], Moments],
    layers: Sequence[int],
    model: ModelInfo | None,
    path: str,
    warnings: Sequence[str] = (),
) -> Card:
    """Return the card of recorded activations."""
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
    said = f"{pairs} pairs · layers {ranges(layers)} · d_model {width} · {path}"
    facts = [("model", model_fact(model))] if model else []
    if step > 1:
        facts.append(("shown of", f"{len(taken)} of {len(layers)} layers, evenly spaced"))
    table = Table(_HEAD, tuple(rows), words=2, left_out=len(moments) - len(shown),
                  caption="median over layers")  # fmt: skip
    notes = tuple(f"Warning: {problem}." for problem in warnings)
    return Card(f"Activations · {said}", tuple(facts), (*curves, table), notes)


_Columns = tuple[list[float], list[float], list[float]]


def _measured(moments: Moments, taken: Sequence[int]) -> _Columns:
    """Return split-half cosine, relative size and relative error at some layers."""
    at = slice(taken[0], None, taken[1] - taken[0]) if len(taken) > 1 else slice(*_one(taken))
    count = moments.count
    part = Moments(
        count,
        moments.mean_chosen[at],
        moments.mean_rejected[at],
        moments.second[at],
        (moments.halves[0][at], moments.halves[1][at]),
        moments.half_counts,
        moments.norm[at],
    )
    size = part.difference.norm(dim=-1)
    error = (part.second.sum(dim=-1) / (count - 1) / count).sqrt() if count > 1 else size * math.nan
    columns = (part.split_half_cosine, size / part.norm, error / size)
    cosine, relative, errors = (column.tolist() for column in columns)
    return cosine, relative, errors


def _one(taken: Sequence[int]) -> tuple[int, int]:
    return (taken[0], taken[0] + 1) if taken else (0, 0)


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
