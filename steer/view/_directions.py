"""The direction that a view reads at a layer."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import as_layers
from steer.algebra import Vector
from steer.errors import FitError, RecordingError, SelectionError
from steer.extract import Activations


def directions(
    what: Vector | Activations,
    layers: Sequence[int] | None,
    domain: str | None = None,
    position: str | None = None,
    *,
    width: int | None = None,
) -> tuple[tuple[int, ...], Float[Tensor, "layer d_model"]]:
    """Return the direction at each layer, in float64.

    A vector of one layer has that direction at every layer asked for; one of several layers has
    at each layer its own; of activations it is the difference of means.
    """
    if isinstance(what, Activations):
        rows = what.of(domain, position).difference
        have = {layer: rows[k] for k, layer in enumerate(what.layers)}
    else:
        have = {layer: what.direction(layer).double().cpu() for layer in what.layers}
    if not have:
        raise RecordingError(
            "there is no direction at a layer",
            found="weight sites alone",
            expected="a vector with residual sites",
            do="look at weights with spectrum, and at what they do to the stream with displacement",
        )
    wanted = tuple(have) if layers is None else as_layers(layers)
    if len(have) == 1 and isinstance(what, Vector):
        have = dict.fromkeys((*wanted, *have), next(iter(have.values())))
    missing = [layer for layer in wanted if layer not in have]
    if missing or not wanted:
        raise RecordingError(
            "there is no direction at a layer",
            found=f"layers {missing or list(wanted)} asked for",
            expected=f"some of {list(have)}",
            do="leave layers out, or extract a vector at these layers",
        )
    rows = torch.stack([have[layer].double() for layer in wanted])
    if width is not None and rows.shape[1] != width:
        raise FitError(
            "the direction does not fit this model",
            found=f"width {rows.shape[1]}",
            expected=f"width {width}",
            do="extract the vector from this model",
        )
    return wanted, rows


def unit(
    layers: Sequence[int], rows: Float[Tensor, "layer d_model"]
) -> Float[Tensor, "layer d_model"]:
    """Return directions of length 1."""
    lengths: Tensor = rows.norm(dim=-1, keepdim=True)
    nowhere = [layer for layer, length in zip(layers, lengths, strict=True) if not float(length)]
    if nowhere:
        raise SelectionError(
            "a direction of length 0 has no projection",
            found=f"zero at layers {nowhere}",
            expected="directions that are not zero",
            do="leave these layers out, or check where the vector comes from",
        )
    return rows / lengths


def position_of(what: Vector | Activations, position: str | None) -> str:
    """Return where a direction was read: as asked, as recorded, or the last template token."""
    if isinstance(what, Activations):
        return what.position(position)
    known = what.provenance.arguments.get("position", "template[-1]")
    return position if position is not None else str(known)
