"""The residual stream of every single pair at one position: what recording averages away."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import as_layers
from steer.engine import unsteered
from steer.engine._reading import dtype_of
from steer.extract import Activations
from steer.extract._record import recorded
from steer.model import Model, check_model
from steer.pairs import Pairs, as_pairs
from steer.view._checks import check_kind, check_one_setting
from steer.view._directions import places_of


@dataclass(frozen=True, eq=False, slots=True)
class PairStream:
    """The residual stream of pairs at one position, and the epsilon that it is known to."""

    chosen: Float[Tensor, "pair layer d_model"]
    rejected: Float[Tensor, "pair layer d_model"]
    eps: float
    domains: tuple[str | None, ...]


def read_pairs(
    model: Model, pairs: Pairs | Activations, position: str, layers: Sequence[int]
) -> PairStream:
    """Return the residual stream of each pair at one position, steering included.

    A recording that kept its pairs is read in place of the model.
    """
    check_model(model)
    check_kind("position", position, str)
    wanted = as_layers(layers)
    if isinstance(pairs, Activations):
        unsteered(model.engine, "a view of a recording")
        found = pairs
        domains = [d for d in found.domains for _ in range(len(found.pairs(d, position)))]
    else:
        pairs = as_pairs(pairs)
        check_one_setting(model, everywhere=True)
        alike, domains = pairs.with_domain(None), [pair.domain for pair in pairs]
        found = recorded(
            model, alike, position, layers=wanted, keep="pairs", progress=False, packing=False
        )
    parts = [found.pairs(domain, position) for domain in found.domains]
    rows = places_of("these layers were not recorded", wanted, found.layers)
    chosen = torch.cat([part.chosen[:, rows].double() for part in parts])
    rejected = torch.cat([part.rejected[:, rows].double() for part in parts])
    eps = max(torch.finfo(kind).eps for kind in (dtype_of(model.architecture), torch.float32))
    return PairStream(chosen, rejected, eps, tuple(domains))
