"""The settings of a sweep: layers × scopes × coefficients."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from steer.composition import Composition, Part, coefficient_rows, number
from steer.errors import SelectionError
from steer.listed import listed, whole_layers
from steer.scope import Scope, parse_scope

Grid = (
    Sequence[float]
    | Mapping[str, Sequence[float]]
    | Sequence[Mapping[str, float]]
    | Sequence[Sequence[float]]
    | Tensor
)


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
    coefficients: tuple[float, ...]


def settings_of(
    composition: Composition,
    grid: Grid,
    layers: Sequence[int] | None,
    scopes: Sequence[Scope | str] | None,
) -> tuple[Setting, ...]:
    """Return every setting of a grid, each once: layers outermost, then scopes.

    Args:
        composition: What is swept.
        grid: Coefficients to try: numbers for every domain, or by domain, of which all
            combinations are taken; or whole settings, as mappings or as `[setting domain]`.
        layers: Layers to try one at a time; None for all sites of the vectors at once.
        scopes: Scopes to try; None for those of the composition.

    Raises:
        SelectionError: There is no setting, or a layer that a vector lacks.
        CompositionError: An unknown domain, a value that is not finite, or an unknown scope.
    """
    rows = coefficients(composition, grid)
    named = [None] if scopes is None else [str(parse_scope(scope)) for scope in scopes]
    at = [None] if layers is None else whole_layers(layers)
    found = [Setting(*choice) for choice in itertools.product(at, named, rows)]
    if not found:
        raise SelectionError(
            "there is nothing to sweep",
            found=f"layers {layers}, scopes {scopes}, {len(rows)} settings of the coefficients",
            expected="at least one of each",
            do="give coefficients, for instance [-1, -0.5, 0, 0.5, 1]",
        )
    for layer in at:
        composed(composition, layer, None)
    return tuple(dict.fromkeys(found))


def coefficients(composition: Composition, grid: Grid) -> list[tuple[float, ...]]:
    """Return the coefficients of a grid as they were given, one row per setting.

    Args:
        composition: Whose domains.
        grid: See `settings_of`.

    Raises:
        SelectionError: The grid is empty.
        CompositionError: An unknown domain, or a value that is not finite.
    """
    domains = composition.domains
    if isinstance(grid, Mapping):
        grid = {name: listed(f"coefficients of {name!r}", c) for name, c in grid.items()}
    elif not isinstance(grid, Tensor):
        grid = cast(Sequence[float], listed("coefficients of a grid", grid))
    if isinstance(grid, Tensor) and grid.ndim not in (1, 2):
        raise SelectionError(
            "this tensor is no grid",
            found=f"shape {list(grid.shape)}",
            expected="[setting domain], or one dimension of values for every domain",
            do="give for instance [-1, -0.5, 0, 0.5, 1]",
        )
    if len(grid) == 0:
        raise SelectionError(
            "the grid is empty",
            found=repr(grid),
            expected="coefficients to try",
            do="give for instance [-1, -0.5, 0, 0.5, 1]",
        )
    if isinstance(grid, Mapping):
        coefficient_rows(dict.fromkeys(grid, 0.0), domains)  # refuses unknown domains
        rows = list(itertools.product(*(grid.get(domain, (0.0,)) for domain in domains)))
    elif isinstance(grid, Tensor) and grid.ndim == 2:
        rows = grid.tolist()
    elif isinstance(cast(object, grid[0]), list | tuple):
        rows = [tuple(row) for row in cast(Sequence[Sequence[float]], grid)]
    elif isinstance(grid[0], Mapping):
        whole = cast(Sequence[Mapping[str, float]], grid)
        coefficient_rows(whole, domains)
        rows = [tuple(row.get(domain, 0.0) for domain in domains) for row in whole]
    else:
        values = [number(c) for c in cast(Sequence[float], grid)]
        rows = list(itertools.product(values, repeat=len(domains)))
    for row in rows:
        coefficient_rows(row, domains)  # refuses what cannot be used
    return [tuple(number(c) + 0.0 for c in row) for row in rows]


def composed(composition: Composition, layer: int | None, scope: str | None) -> Composition:
    """Return the composition at one layer and with one scope.

    Args:
        composition: The whole composition.
        layer: The layer that alone is steered, or None for all sites.
        scope: The scope of every domain, or None for their own.

    Raises:
        SelectionError: A vector has nothing at that layer.
    """
    parts = {}
    for name, part in composition.parts.items():
        if layer is not None and layer not in part.vector.layers:
            raise SelectionError(
                f"the vector of {name!r} has nothing at a layer of the sweep",
                found=f"layer {layer}",
                expected=f"among {list(part.vector.layers)}",
                do="leave the layer out, or extract the vector there",
            )
        vector = part.vector if layer is None else part.vector[layer]
        parts[name] = Part(
            vector, part.operator, part.scope if scope is None else parse_scope(scope)
        )
    return Composition(parts, composition.coefficients[:1], composition.gate)
