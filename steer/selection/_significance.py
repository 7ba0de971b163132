"""Whether a chosen setting has an effect on unseen pairs, by two tests.

An exact sign test compares it with the unsteered model; and since a strong push in any direction
changes preferences, its gain is compared with that of random vectors of equal norm.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch

from steer.measure import Preference

ALPHA = 0.01
_DETECTABLE = 2.326 + 0.842  # normal quantiles: one-sided test at 0.01, power 0.8


@dataclass(frozen=True, slots=True)
class Evidence:
    """Tests of a chosen setting on pairs that the choice never saw.

    Args:
        p_unsteered: Exact sign test of the pairs' margins against the unsteered model: one test of
            one setting, which needs no correction.
        p_random: Mean gain in margin against random vectors of equal norm, a Student-t prediction.
        settings: Settings that were measured, of a race candidates; `p_random` is corrected by it
            (Bonferroni), since the choice takes the setting where this vector does best.
        gained: Pairs whose margin rose by more than rounding.
        lost: Pairs whose margin fell by more than rounding.
        references: Random vectors compared with.
        before: Preference accuracy of the unsteered model on the pairs, in [0, 1].
        after: The same at the setting. `holds` says that an effect is there, these how large it is.
        gain: Mean change of margin, in nats.
        gain_error: Its standard error; NaN for one pair.
    """

    p_unsteered: float
    p_random: float
    settings: int
    gained: int
    lost: int
    references: int
    before: float
    after: float
    gain: float = math.nan
    gain_error: float = math.nan

    @property
    def corrected(self) -> float:
        """The larger p-value, that against random vectors times the number of settings."""
        return max(self.p_unsteered, min(1.0, self.p_random * self.settings))

    @property
    def needed(self) -> int:
        """The fewest pairs that must change for `holds` to be possible, were all to rise."""
        return math.ceil(math.log2(1 / ALPHA))

    @property
    def detectable(self) -> float:
        """The mean change of margin that would be found in four of five cases, in nats."""
        return _DETECTABLE * self.gain_error

    def holds(self, alpha: float = ALPHA) -> bool:
        """Return whether both tests hold after the correction.

        Args:
            alpha: Share of useless vectors that may pass.
        """
        return self.corrected <= alpha

    def __str__(self) -> str:
        changed = self.gained + self.lost
        few = f"; too few pairs to tell: {changed} change, at least {self.needed} are needed"
        found = ""
        if math.isfinite(self.gain_error):
            found = f"margin {self.gain:+.3f} nats (detectable: {self.detectable:.3f}); "
        return (
            f"accuracy {self.before:.1%} → {self.after:.1%}; {found}"
            f"up in {self.gained}, down in {self.lost} unseen pairs; p = "
            f"{self.p_unsteered:.2g} against unsteered, {self.p_random:.2g} × {self.settings} "
            f"tried, against {self.references} random vectors"
            + (few if changed < self.needed else "")
        )


def evidence(
    unsteered: Sequence[float],
    steered: Sequence[float],
    references: Sequence[Sequence[float]],
    settings: int,
    rounding: Sequence[float] = (),
) -> Evidence:
    """Return what speaks for a setting."""
    gains = [after - before for before, after in zip(unsteered, steered, strict=True)]
    base = statistics.fmean(unsteered)
    others = [statistics.fmean(other) - base for other in references]
    beyond_rounding = list(zip(gains, rounding or [0.0] * len(gains), strict=True))
    up, down = (sum(sign * g > r for g, r in beyond_rounding) for sign in (1, -1))
    return Evidence(
        sign_test(up, down),
        beyond(statistics.fmean(gains), others),
        settings,
        up,
        down,
        len(others),
        sum(margin > 0 for margin in unsteered) / len(gains),
        sum(margin > 0 for margin in steered) / len(gains),
        gain=statistics.fmean(gains),
        gain_error=statistics.stdev(gains) / math.sqrt(len(gains)) if gains[1:] else math.nan,
    )


def rounding(before: Preference, after: Preference, dtype: torch.dtype) -> list[float]:
    """Return the rounding error of each pair's change of margin: `ε Σ (1 + |s|)` over its scores.

    The scores are those of both answers, without and with steering; ε is that of the model's dtype,
    at least of float32, in which log-probabilities are taken. A log-probability is the difference
    of two numbers known to ε of their own size, for which 1 nat stands.
    """
    eps = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    scores = torch.stack([before.chosen, before.rejected, after.chosen, after.rejected]).double()
    return (eps * (1 + scores.abs()).sum(dim=0)).tolist()


def sign_test(up: int, down: int) -> float:
    """Return P(X ≥ up) for X ~ Binomial(up + down, 1/2): one-sided and exact; ties are left out."""
    n = up + down
    return float(Fraction(sum(math.comb(n, k) for k in range(up, n + 1)), 2**n))


def beyond(value: float, others: Sequence[float]) -> float:
    """Return P(T_{n−1} ≥ (x − ȳ) / (s √(1 + 1/n))): how likely one more draw is as large.

    It is exact where the others are normal, as gains of random directions nearly are: to first
    order they are inner products.
    """
    from scipy.special import stdtr

    n = len(others)
    error = statistics.stdev(others) * math.sqrt(1 + 1 / n)
    if error == 0:
        return 1.0  # random vectors that change nothing, or all the same, are no comparison
    return float(stdtr(n - 1, (statistics.fmean(others) - value) / error))
