"""Reliability of a vector before it is used: how much its pairs agree."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import as_layers, one_of
from steer.errors import RecordingError, SelectionError
from steer.extract import Activations, record
from steer.extract._moments import Moments
from steer.extract._positions import At
from steer.measure._estimate import Estimate, jackknife
from steer.model import Model
from steer.pairs import Pairs, as_pairs
from steer.show import Card, Curves, Result, Row
from steer.show._rows import table_of

SPLIT_HALF, AMONG, WEIGHTED = "split-half cosine", "cosine among differences", "weighted cosine"
D_PRIME, ERROR = "d′ across halves", "error / norm"
_NONE = (math.nan, math.nan)
_TINY = 1e-300


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Reliability(Result):
    """How much the pairs of a vector agree, layer by layer.

    Args:
        layers: The layers, ascending.
        measures: For each measure, an estimate for each layer.
        position: The position that was read.
        pairs: Number of pairs.
    """

    layers: tuple[int, ...]
    measures: Mapping[str, tuple[Estimate, ...]]
    position: str
    pairs: int

    def at(self, layer: int) -> dict[str, Estimate]:
        """Return every measure at one layer.

        Args:
            layer: The layer.

        Raises:
            ArgumentError: It was not measured.
        """
        k = self.layers.index(one_of("layer", layer, self.layers, do="record this layer too"))
        return {name: found[k] for name, found in self.measures.items()}

    @property
    def rows(self) -> list[Row]:
        """One row per layer and measure."""
        return [
            {"layer": layer, **found.rows[0]}
            for layer in self.layers
            for found in self.at(layer).values()
        ]

    def _card(self) -> Card:
        wide = [
            {"layer": str(layer), **{name: str(e) for name, e in self.at(layer).items()}}
            for layer in self.layers
        ]
        curves = [
            Curves(
                name,
                "layer",
                {
                    "": tuple(
                        (float(k), e.value, *e.interval)
                        for k, e in zip(self.layers, values, strict=True)
                    )
                },
                whole=True,
            )
            for name, values in self.measures.items()
        ]
        title = f"Reliability of {self.pairs} pairs at {self.position}"
        return Card(title, (), (table_of(wide), *curves))


def reliability(
    what: Activations | Model,
    pairs: Pairs | None = None,
    at: At = "response_mean",
    *,
    domain: str | None = None,
    position: str | None = None,
    layers: Sequence[int] | None = None,
    progress: bool = True,
) -> Reliability:
    """Return how much the differences of single pairs agree at each layer, with intervals.

    With d = h(chosen) − h(rejected) of each pair, and v the mean of d over one half (the pairs
    with even or with odd index):

    - split-half cosine: cos(v_even, v_odd). Near 1: other pairs would give the same vector.
    - cosine among differences: the mean of cos(dᵢ, dⱼ) over i ≠ j. Near 0: the pairs disagree.
    - d′ across halves: (mean⁺ − mean⁻) / √((var⁺ + var⁻) / 2) of ⟨h, v⟩ over the half that v was
      not computed from, averaged over both. Below 1 chosen and rejected overlap widely.
    - error / norm: ‖standard error of the mean d‖ / ‖mean d‖; no interval.

    Intervals are jackknife intervals, leaving out one pair at a time. They are NaN with too few
    pairs: below three for the cosine among differences, four for the split-half cosine and six for
    d′, which itself is NaN below four.

    A recording without kept pairs holds sums over pairs only. It gives no intervals and no d′, and
    the cosine among differences is weighted by their lengths:
    Σ_{i≠j} ⟨dᵢ, dⱼ⟩ / ((n − 1) Σ ‖dᵢ‖²).

    Args:
        what: A recording, best made with `keep="pairs"`; or a model, which then records `pairs`.
        pairs: The pairs to record, with a model only.
        at: Position to read, with a model only; see `record`.
        domain: The domain of the recording; optional if there is only one.
        position: The position; optional if there is only one.
        layers: Layers to report, all by default.
        progress: Whether to show a progress bar.

    Returns:
        A table of layers.

    Raises:
        RecordingError: See `record`; no such domain, position or layer, or several to choose from.
        SelectionError: A recording is given together with pairs, or a model without pairs.

    Reference:
        arXiv 2505.22637 (cosine among differences and separation predict how well a vector
        steers).
    """
    if isinstance(what, Model) and pairs is not None:
        whole = as_pairs(pairs).with_domain(None)
        what = record(what, whole, at, layers=layers, keep="pairs", progress=progress)
    elif not isinstance(what, Activations) or pairs is not None:
        raise SelectionError(
            "reliability takes a recording, or a model and pairs",
            found=f"{type(what).__name__} and {'no pairs' if pairs is None else 'pairs'}",
            expected="a recording alone, or a model and pairs",
            do="reliability(model, pairs), or reliability(record(model, pairs, keep='pairs'))",
        )
    domain, place = what.domain(domain), what.position(position)
    moments, rows = what.of(domain, place), _rows(what, layers)
    if what.kept is None:
        every = _from_moments(moments)
        measures = {name: tuple(found[k] for k in rows) for name, found in every.items()}
    else:
        pairs_kept = what.pairs(domain, place)
        sides = pairs_kept.chosen.double(), pairs_kept.rejected.double()
        table = [_at_layer(sides[0][:, k], sides[1][:, k]) for k in rows]
        measures = {name: tuple(row[name] for row in table) for name in table[0]}
    return Reliability(tuple(what.layers[k] for k in rows), measures, place, moments.count)


def _rows(activations: Activations, layers: Sequence[int] | None) -> list[int]:
    """Return the indices of layers in a recording."""
    wanted = activations.layers if layers is None else sorted({*as_layers(layers)})
    if missing := [layer for layer in wanted if layer not in activations.layers]:
        raise RecordingError(
            "these layers were not recorded",
            found=f"layers {missing}",
            expected=f"some of {list(activations.layers)}",
            do="record these layers too",
        )
    return [activations.layers.index(layer) for layer in wanted]


def _from_moments(moments: Moments) -> dict[str, tuple[Estimate, ...]]:
    """Return the measures that sums over pairs give at every layer, without intervals."""
    n, mean = moments.count, moments.difference.square().sum(dim=-1)
    total = moments.second.sum(dim=-1) + n * mean
    weighted = (n * n * mean - total) / (max(n - 1, 0) * total)
    columns = {SPLIT_HALF: moments.split_half_cosine, WEIGHTED: weighted, ERROR: _error(moments)}
    return {
        name: tuple(Estimate(name, float(x), _NONE, n) for x in values)
        for name, values in columns.items()
    }


def _error(moments: Moments) -> Float[Tensor, " layer"]:
    error: Tensor = torch.linalg.vector_norm(moments.standard_error, dim=-1)
    length: Tensor = torch.linalg.vector_norm(moments.difference, dim=-1)
    return error / length


def _at_layer(
    chosen: Float[Tensor, "pair d_model"], rejected: Float[Tensor, "pair d_model"]
) -> dict[str, Estimate]:
    """Return the measures of one layer, computed from inner products of the pairs."""
    centre = (chosen + rejected).mean(dim=0) / 2
    d = chosen - rejected
    even, odd = _halves(len(d))
    gram = d @ d.T
    cosines = _cosines(gram, even, odd)
    separation = _separation((chosen - centre) @ d.T, (rejected - centre) @ d.T, even, odd)
    among = _among(gram)
    mean = d.mean(dim=0)
    variance = (d - mean).square().sum() / max(len(d) - 1, 0)  # 0 / 0 for one pair: NaN
    error = float((variance / len(d)).sqrt() / mean.norm())
    return {
        SPLIT_HALF: jackknife(SPLIT_HALF, float(cosines[0]), cosines[1:], (-1.0, 1.0)),
        AMONG: jackknife(AMONG, float(among[0]), among[1:], (-1.0, 1.0)),
        D_PRIME: jackknife(D_PRIME, float(separation[0]), separation[1:], (-math.inf, math.inf)),
        ERROR: Estimate(ERROR, error, _NONE, len(d)),
    }


def _halves(n: int) -> tuple[Float[Tensor, "setting pair"], Float[Tensor, "setting pair"]]:
    """Return the weights of the pairs in each half: all pairs, then without each pair in turn."""
    kept = torch.cat([torch.ones(1, n), 1 - torch.eye(n)]).double()
    is_odd = (torch.arange(n) % 2).double()
    return kept * (1 - is_odd), kept * is_odd


def _cosines(gram: Tensor, even: Tensor, odd: Tensor) -> Float[Tensor, " setting"]:
    def inner(a: Tensor, b: Tensor) -> Tensor:
        return ((a @ gram) * b).sum(dim=1)

    return inner(even, odd) / (inner(even, even) * inner(odd, odd)).sqrt()


def _among(gram: Float[Tensor, "pair pair"]) -> Float[Tensor, " setting"]:
    """Return the mean cosine of two different pairs: of all, then without each pair in turn."""
    n, lengths = len(gram), gram.diagonal().sqrt()
    cosines = gram / (lengths[:, None] * lengths).clamp_min(_TINY)
    cosines = cosines - torch.diag(cosines.diagonal())
    total, own = cosines.sum(), cosines.sum(dim=1)
    return torch.cat([_over(total[None], n), _over(total - 2 * own, n - 1)])


def _over(total: Float[Tensor, " setting"], n: int) -> Float[Tensor, " setting"]:
    """Return the mean for a sum over ordered pairs of n items; NaN for fewer than two."""
    return total / (n * (n - 1)) if n > 1 else total * math.nan


def _separation(
    chosen: Float[Tensor, "pair pair"],
    rejected: Float[Tensor, "pair pair"],
    even: Tensor,
    odd: Tensor,
) -> Float[Tensor, " setting"]:
    """Return the mean d′ of both halves, each along the direction of the other half.

    `chosen` and `rejected` hold ⟨activation i, difference j⟩.
    """
    found = []
    for own, other in ((even, odd), (odd, even)):
        sides = [_mean_variance(other @ side.T, own) for side in (chosen, rejected)]
        (up, up_var), (down, down_var) = sides
        found.append((up - down) / ((up_var + down_var) / 2).sqrt())
    return (found[0] + found[1]) / 2


def _mean_variance(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and unbiased variance of each row over the entries of weight 1."""
    count = weights.sum(dim=1)
    mean = (values * weights).sum(dim=1) / count
    squares = ((values - mean[:, None]).square() * weights).sum(dim=1)
    return mean, squares / (count - 1)
