"""How far apart two samples of numbers lie: AUC and d′, with intervals."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from steer.evaluate.estimate import Estimate, jackknife
from steer.evaluate.interval import Z95

_ROUNDINGS = 16  # a projection is known to less than half of this many times eps · ‖h ∘ u‖


def auc(chosen: Float[Tensor, " pair"], rejected: Float[Tensor, " pair"]) -> Estimate:
    """Return the probability that a chosen one is above a rejected one.

    θ = P(s⁺ > s⁻) + P(s⁺ = s⁻) / 2 over all n² combinations. The interval holds every θ' with
    |θ − θ'| ≤ 1.96 √V(θ'), V(θ) = θ(1 − θ) (1 + m (1 − θ)/(2 − θ) + m θ/(1 + θ)) / n², m = n − 1:
    it has a width also where θ is 0 or 1. It takes both sides as independent, which makes it too
    wide rather than too narrow where the answers to one prompt resemble each other.

    Args:
        chosen: One number for each pair.
        rejected: Likewise.

    Returns:
        The AUC; 0.5 is chance.

    Reference:
        Newcombe 2006 (Statist. Med. 25, 559), method 5.
    """
    n = len(chosen)
    above = (chosen[:, None] > rejected[None]).double().mean()
    equal = (chosen[:, None] == rejected[None]).double().mean()
    theta = float(above + equal / 2)
    ends = (_end(theta, 0.0, n), _end(theta, 1.0, n))
    return Estimate("AUC", theta, ends, n)


def _end(theta: float, limit: float, n: int) -> float:
    """Return the end of the interval between an AUC and 0 or 1, by bisection."""
    inside, outside = theta, limit
    if abs(theta - limit) == 0.0:
        return limit
    for _ in range(60):
        middle = (inside + outside) / 2
        m = n - 1
        spread = 1 + m * (1 - middle) / (2 - middle) + m * middle / (1 + middle)
        error = Z95 * math.sqrt(middle * (1 - middle) * spread) / n
        if abs(theta - middle) <= error:
            inside = middle
        else:
            outside = middle
    return (inside + outside) / 2


def d_prime(chosen: Float[Tensor, " pair"], rejected: Float[Tensor, " pair"]) -> Estimate:
    """Return the distance of the means in standard deviations.

    d′ = (mean s⁺ − mean s⁻) / √((var s⁺ + var s⁻) / 2), with the jackknife's interval over pairs.
    Where nothing varies it is 0 for equal means, else infinite.

    Args:
        chosen: One number for each pair.
        rejected: Likewise.
    """
    n = len(chosen)
    if n < 2:
        return Estimate("d′", math.nan, (math.nan, math.nan), n)
    value = float(_distance([s[None] for s in (chosen, rejected)])[0])
    if n < 3:
        return Estimate("d′", value, (math.nan, math.nan), n)
    others = torch.arange(n)[None, :].expand(n, n)[~torch.eye(n, dtype=torch.bool)].view(n, -1)
    without = _distance([s[others] for s in (chosen, rejected)])
    return jackknife("d′", value, without, (-math.inf, math.inf))


def _distance(sides: list[Float[Tensor, "batch pair"]]) -> Float[Tensor, " batch"]:
    """Return d′ of each row of numbers."""
    difference = sides[0].mean(dim=1) - sides[1].mean(dim=1)
    both = sides[0].var(dim=1) + sides[1].var(dim=1)
    return torch.where(difference == 0, 0.0, difference / (both / 2).sqrt())


def rounded(
    projections: Float[Tensor, "pair layer"], size: Float[Tensor, " layer"], eps: float
) -> Float[Tensor, "pair layer"]:
    """Return projections in steps of what is known of them, so that rounding alone is a tie.

    Args:
        projections: In residual units.
        size: Mean ‖h ∘ u‖ of each layer, in residual units: what the products are that are added
            up to a projection. Large activations that the direction does not see add nothing.
        eps: Machine epsilon of the stream's dtype.
    """
    step = (_ROUNDINGS * eps * size).clamp_min(torch.finfo(torch.float64).tiny)
    return (projections / step).round() * step
