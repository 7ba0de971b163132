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
    known = what.layers
    if not known:
        raise RecordingError(
            "there is no direction at a layer",
            found="weight sites alone",
            expected="a vector with residual sites",
            do="look at weights with spectrum, and at what they do to the stream with displacement",
        )
    if isinstance(what, Activations):
        rows = what.of(domain, position).difference
    else:
        rows = torch.stack([what.direction(layer).double().cpu() for layer in known])
    wanted = known if layers is None else as_layers(layers)
    if len(known) == 1 and isinstance(what, Vector):
        known, rows = wanted, rows.expand(len(wanted), -1)
    places = places_of("there is no direction at a layer", wanted, known)
    rows = rows[places]
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


def recorded_at(activations: Activations, layers: Sequence[int]) -> list[int]:
    """Return where some layers stand among those of a recording."""
    return places_of("these layers were not recorded", layers, activations.layers)


def places_of(what: str, layers: Sequence[int], known: Sequence[int]) -> list[int]:
    """Return where some layers stand among those that there are; `what` is said if one does not."""
    missing = [layer for layer in layers if layer not in known]
    if missing or not layers:
        raise RecordingError(
            what,
            found=f"layers {missing or list(layers)} asked for",
            expected=f"some of {list(known)}",
            do="leave layers out, name others, or record and extract these as well",
        )
    return [known.index(layer) for layer in layers]
