"""The residual stream of every single pair at one position: what recording averages away."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import as_layers
from steer.engine import unsteered
from steer.engine._base import in_place
from steer.engine._layout import Place
from steer.engine._reading import dtype_of, read_padded
from steer.errors import RecordingError
from steer.extract import Activations
from steer.extract._positions import TEMPLATE, plan
from steer.model import Model, check_model
from steer.pairs import Pairs, as_pairs
from steer.view._checks import check_finite, check_kind, check_one_setting

_TOKENS = 4096  # of one forward, padding included


@dataclass(frozen=True, eq=False, slots=True)
class PairStream:
    """The residual stream of pairs at one position."""

    chosen: Float[Tensor, "pair layer d_model"]
    rejected: Float[Tensor, "pair layer d_model"]
    layers: tuple[int, ...]
    position: str
    eps: float
    domains: tuple[str | None, ...]


def read_pairs(
    model: Model, pairs: Pairs | Activations, position: str, layers: Sequence[int]
) -> PairStream:
    """Return the residual stream of each pair at one position, steering included."""
    check_model(model)
    if isinstance(pairs, Activations):
        return _recorded(model, pairs, position, layers)
    pairs = as_pairs(pairs)
    check_kind("position", position, str)
    in_place(model.engine, "reading the stream of pairs")
    check_one_setting(model, everywhere=True)
    wanted = as_layers(layers)
    if not len(pairs):
        raise RecordingError(
            "there is nothing to read",
            found="0 pairs",
            expected="at least one pair",
            do="check where the pairs come from",
        )
    if not wanted or wanted != tuple(k for k in range(model.n_layers) if k in wanted):
        raise RecordingError(
            "these layers cannot be read",
            found=f"layers {list(wanted)}",
            expected=f"layers from 0 to {model.n_layers - 1}, ascending, each once",
            do="count the blocks from 0; layer l is the output of block l",
        )
    labels, units = plan(model.chat, pairs, position.split("[")[0])
    if position not in labels:
        raise RecordingError(
            "there is no such position",
            found=repr(position),
            expected=f"one of {', '.join(labels)}",
            do=f"count the template's tokens from the end: '{TEMPLATE}[-1]'",
        )
    sequences: list[tuple[int, ...]] = []
    places: list[Place] = []
    at = labels.index(position)
    for unit in units:
        sides = (unit.places[at], unit.places[at + len(labels)])
        places += [Place(side.sequence + len(sequences), side.tokens) for side in sides]
        sequences += unit.sequences
    means = read_padded(model.architecture, sequences, places, wanted, max_tokens=_TOKENS)
    check_finite("the stream", means.residual)
    chosen, rejected = means.residual.unflatten(0, (-1, 2)).unbind(1)
    domains = tuple(pair.domain for pair in pairs)
    return PairStream(chosen, rejected, wanted, position, _eps(model), domains)


def _recorded(
    model: Model, activations: Activations, position: str, layers: Sequence[int]
) -> PairStream:
    """Return the streams of the pairs that a recording kept."""
    unsteered(model.engine, "a view of a recording")
    wanted = as_layers(layers)
    parts = [activations.pairs(domain, position) for domain in activations.domains]
    if not wanted or not {*wanted} <= {*activations.layers}:
        raise RecordingError(
            "these layers were not recorded",
            found=f"layers {list(wanted)}",
            expected=f"some of {list(activations.layers)}",
            do="record them as well",
        )
    rows = [activations.layers.index(layer) for layer in wanted]
    chosen = torch.cat([part.chosen[:, rows].double() for part in parts])
    rejected = torch.cat([part.rejected[:, rows].double() for part in parts])
    named = zip(activations.domains, parts, strict=True)
    domains = tuple(domain for domain, part in named for _ in range(len(part)))
    return PairStream(chosen, rejected, wanted, position, _eps(model), domains)


def _eps(model: Model) -> float:
    return torch.finfo(dtype_of(model.architecture)).eps
