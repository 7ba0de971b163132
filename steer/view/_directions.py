"""The direction that a view reads at a layer."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import as_layers
from steer.algebra import Vector
from steer.errors import FitError, RecordingError, SelectionError
from steer.model import Model
from steer.view._checks import check_kind


def directions(
    name: str, vector: Vector, layers: Sequence[int] | None = None, *, model: Model | None = None
) -> tuple[tuple[int, ...], Float[Tensor, "layer d_model"]]:
    """Return the direction of a vector at each layer, in float64.

    A vector of one layer has that direction at every layer asked for; one of several layers has
    at each layer its own.
    """
    check_kind(name, vector, Vector)
    known = vector.layers
    if not known:
        raise RecordingError(
            "there is no direction at a layer",
            found="weight sites alone",
            expected="a vector with residual sites",
            do="look at weights with spectrum, and at what they do to the stream with displacement",
        )
    rows = torch.stack([vector.direction(layer).double().cpu() for layer in known])
    if model is not None and rows.shape[1] != model.d_model:
        raise FitError(
            "the direction does not fit this model",
            found=f"width {rows.shape[1]}",
            expected=f"width {model.d_model}",
            do="extract the vector from this model",
        )
    wanted = known if layers is None else as_layers(layers)
    if len(known) == 1:
        known, rows = wanted, rows.expand(len(wanted), -1)
    return wanted, rows[places_of("there is no direction at a layer", wanted, known)]


def units(
    name: str, vector: Vector, layers: Sequence[int] | None = None, *, model: Model | None = None
) -> tuple[tuple[int, ...], Float[Tensor, "layer d_model"]]:
    """Return the direction of a vector at each layer, of length 1."""
    wanted, rows = directions(name, vector, layers, model=model)
    lengths = rows.norm(dim=-1)
    nowhere = [k for k, length in zip(wanted, lengths.tolist(), strict=True) if not length]
    if nowhere:
        raise SelectionError(
            "a direction of length 0 has no projection",
            found=f"zero at layers {nowhere}",
            expected="directions that are not zero",
            do="leave these layers out, or check where the vector comes from",
        )
    return wanted, rows / lengths[:, None]


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
