"""The settings of a sweep: layers × scopes × coefficients."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from steer._check import as_layers, as_list
from steer.algebra import Composition, Scope, parse_scope
from steer.algebra._coefficients import coefficient_rows, number
from steer.errors import SelectionError

Row = tuple[float, ...]
Axes = Sequence[float] | Mapping[str, Sequence[float]]
Grid = Axes | Sequence[Mapping[str, float]] | Sequence[Sequence[float]] | Tensor


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a sweep.

    Args:
        layer: The one layer steered; None where every vector acts at all of its sites.
        scope: The tokens steered; None where every domain keeps its own scope.
        coefficients: One for each domain, dimensionless.
    """

    layer: int | None
    scope: str | None
    coefficients: Row


def settings_of(
    composition: Composition,
    grid: Grid,
    layers: Sequence[int] | None,
    scopes: Sequence[Scope | str] | None,
) -> tuple[Setting, ...]:
    """Return every setting of a grid once, layers outermost, then scopes (see `sweep`)."""
    at = [None] if layers is None else as_layers(layers)
    named = [None] if scopes is None else [str(parse_scope(scope)) for scope in scopes]
    rows = _rows(composition, grid)
    found = dict.fromkeys(Setting(*choice) for choice in itertools.product(at, named, rows))
    if not found:
        shape = f" of shape {list(grid.shape)}" if isinstance(grid, Tensor) else f" {grid!r}"
        raise SelectionError(
            "there is nothing to sweep",
            found=f"layers {layers}, scopes {scopes}, a grid{shape[:200]}",
            expected="at least one of each; in a tensor [setting domain], or values for every "
            "domain in one dimension",
            do="give coefficients, for instance [-1, -0.5, 0, 0.5, 1]",
        )
    for layer in at:
        composed(composition, layer)  # refuses a layer that a vector lacks
    return tuple(found)


def _rows(composition: Composition, grid: Any) -> list[Row]:
    """Return the coefficients of a grid as they were given, one row for each setting."""
    domains = composition.domains
    if isinstance(grid, Mapping):
        grid = [*itertools.product(*axes_of(domains, grid))] if grid else []
    elif isinstance(grid, Tensor):
        grid = grid.tolist() if grid.ndim in (1, 2) else []
    grid = as_list("coefficients of a grid", grid)
    if grid and not isinstance(grid[0], Mapping | list | tuple):  # values for every domain
        grid = [*itertools.product(map(number, grid), repeat=len(domains))]
    if not grid:
        return []
    rows = coefficient_rows(grid, domains)[0] + 0.0  # no −0.0
    return [tuple(row) for row in rows.tolist()]


def axes_of(domains: Sequence[str], values: Axes, least: int = 0) -> list[list[float]]:
    """Return the values of each domain, of all alike or by domain; 0 for a domain without."""
    if not isinstance(values, Mapping):
        return [as_list("coefficients", values, least=least)] * len(domains)
    coefficient_rows(dict.fromkeys(values, 0.0), domains)  # refuses unknown domains
    each = {d: values.get(d, (0.0,)) for d in domains}
    return [as_list(f"coefficients of {d!r}", own, least=least) for d, own in each.items()]


def composed(
    composition: Composition,
    layer: int | None = None,
    scope: Scope | str | None = None,
    operator: str | None = None,
) -> Composition:
    """Return a composition at one layer, scope and operator; None leaves them as they are."""
    parts = {
        name: replace(
            part,
            vector=part.vector if layer is None else part.vector[layer],
            scope=part.scope if scope is None else parse_scope(scope),
            operator=operator or part.operator,
        )
        for name, part in composition.parts.items()
    }
    own = composition.coefficients[:1]
    return replace(composition, parts=parts, coefficients=own, per_row=False)
