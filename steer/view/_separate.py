"""How far apart two samples of numbers lie: AUC and d′, with intervals."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steer.measure import Estimate
from steer.measure._estimate import jackknife
from steer.measure._interval import Z95

_ROUNDINGS = 8  # what storing a stream adds to a projection is less than this many eps · ‖h ∘ u‖
_SUMS = torch.finfo(torch.float32).eps  # of what half precision is summed in


def auc(
    chosen: Float[Tensor, " pair"], rejected: Float[Tensor, " pair"], tie: float = 0.0
) -> Estimate:
    """Return the probability that a chosen one is above a rejected one.

    θ = P(s⁺ > s⁻ + t) + P(|s⁺ − s⁻| ≤ t) / 2 over all n² combinations, t being `tie`: a difference
    that rounding alone can make is a tie on every machine. The interval holds every θ' with
    |θ − θ'| ≤ 1.96 √V(θ'), V(θ) = θ(1 − θ) (1 + m (1 − θ)/(2 − θ) + m θ/(1 + θ)) / n², m = n − 1:
    it has a width also where θ is 0 or 1. It takes both sides as independent, which makes it too
    wide rather than too narrow where the answers to one prompt resemble each other.

    Reference:
        Newcombe 2006 (Statist. Med. 25, 559), method 5.
    """
    n = len(chosen)
    apart = chosen[:, None] - rejected[None]
    above = (apart > tie).double().mean()
    equal = (apart.abs() <= tie).double().mean()
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


def d_prime(
    chosen: Float[Tensor, " pair"], rejected: Float[Tensor, " pair"], tie: float = 0.0
) -> Estimate:
    """Return the distance of the means in standard deviations.

    d′ = (mean s⁺ − mean s⁻) / √((var s⁺ + var s⁻) / 2), with the jackknife's interval over pairs.
    Means within `tie` are equal and a standard deviation within it is 0. For equal means d′ is 0;
    else it is infinite where nothing varies.
    """
    n, both = len(chosen), (chosen[None], rejected[None])
    value = float(_distance(both, tie)) if n > 1 else math.nan
    if n < 3:
        return Estimate("d′", value, (math.nan, math.nan), n)
    others = ~torch.eye(n, dtype=torch.bool)
    without = _distance([s.expand(n, n)[others].view(n, -1) for s in both], tie)
    return jackknife("d′", value, without, (-math.inf, math.inf))


def _distance(sides: Sequence[Float[Tensor, "batch pair"]], tie: float) -> Float[Tensor, " batch"]:
    """Return d′ of each row of numbers."""
    difference = sides[0].mean(dim=1) - sides[1].mean(dim=1)
    spread = ((sides[0].var(dim=1) + sides[1].var(dim=1)) / 2).sqrt()
    spread = torch.where(spread <= tie, 0.0, spread)
    return torch.where(difference.abs() <= tie, 0.0, difference / spread)


def resolution(
    products: Float[Tensor, "pair layer d_model"], eps: float
) -> Float[Tensor, " layer"]:
    """Return by how much two equal projections can differ through rounding alone.

    A projection h · u is known to r = 8 ε ‖h ∘ u‖₂ + √d u₃₂ ‖h ∘ u‖₁ (means over pairs), and a
    difference of two to 2 r. The first term is for the dtype that h is stored in, the second for
    the d-term sum that an operator forms to change this projection: each partial sum is at most
    ‖h ∘ u‖₁ and is rounded by the unit roundoff u₃₂ of float32 (of the dtype, if that is finer),
    in whatever order a machine sums, and d such errors of either sign add up to √d of them.

    Reference:
        Higham and Mary 2019 (SIAM J. Sci. Comput. 41, A2815): the √d.
    """
    stored = _ROUNDINGS * eps * products.norm(dim=-1)
    summed = min(eps, _SUMS) / 2 * math.sqrt(products.shape[-1]) * products.abs().sum(dim=-1)
    bound: Tensor = 2 * (stored + summed).mean(dim=0)
    return bound
