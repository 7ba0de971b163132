"""Whether a setting that was chosen on some pairs has an effect on other pairs, by two tests.

Two things could make a useless vector look good, and each has its test. A pair counts as changed
only where its margin moves by more than rounding does (`rounding`): a push of 1e-7 is no effect.

*The pairs.* Chosen answers could have gained by the chance of which pairs were drawn. An exact sign
test of the changes of margin asks. It is one test of one setting on pairs that took no part in
choosing, so it needs no correction.

*The vector.* Pushed hard enough, a random direction really changes preferences, for some of them
in the wanted way, and on any pairs. Of many settings the choice takes the one where the vector at
hand does so, and it is the same vector on the unseen pairs: here the number of settings counts.
So the gain must also exceed what random vectors of equal norm reach at the chosen setting, by a
Student-t prediction that takes their gains for normal, its p-value multiplied by the number of
settings measured (Bonferroni); of a race, by the number of candidates raced.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch

from steer.errors import SelectionError
from steer.measure import Preference

ALPHA = 0.01
_DETECTABLE = 2.326 + 0.842  # normal quantiles: one-sided test at 0.01, power 0.8


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for a chosen setting on pairs that the choice never saw.

    Args:
        p_unsteered: Of the exact sign test of the pairs' margins against the unsteered model.
        p_random: Of the mean gain in margin against random vectors of equal norm.
        settings: Settings that were measured, of a race candidates; `p_random` is corrected by it.
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
    if not all(math.isfinite(m) for row in (unsteered, steered, *references) for m in row):
        raise SelectionError(
            "margins that are not finite are evidence of nothing",
            found=f"unsteered, steered and {len(references)} random vectors, "
            "with NaN or infinite margins among theirs",
            expected="a finite margin of every pair",
            do="look at the pairs and the model's logits",
        )
    gains = [after - before for before, after in zip(unsteered, steered, strict=True)]
    others = [
        sum(a - b for b, a in zip(unsteered, other, strict=True)) / len(gains)
        for other in references
    ]
    beyond_rounding = list(zip(gains, rounding or [0.0] * len(gains), strict=True))
    up, down = (sum(sign * g > r for g, r in beyond_rounding) for sign in (1, -1))
    return Evidence(
        sign_test(up, down),
        beyond(sum(gains) / len(gains), others),
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
    """Return by how much the margin of each pair may change without a cause, in nats.

    `ε Σ (1 + |s|)` over the four scores s that a change of margin is made of: of both answers,
    without and with steering. ε is the distance from 1 to the next number of the dtype that the
    model computes in, but at least that of float32, in which log-probabilities are taken. A score
    is a mean or sum of log-probabilities, each the difference of a logit and the logarithm of a sum
    of exponentials. Both are known to ε of their size only, which where they differ little is not
    the size of the score; 1 nat stands for it. It is the size of the error, not its upper limit:
    what rounding errors add up to in the blocks below depends on the model.
    """
    eps = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    scores = torch.stack([before.chosen, before.rejected, after.chosen, after.rejected]).double()
    return (eps * (1 + scores.abs()).sum(dim=0)).tolist()


def sign_test(up: int, down: int) -> float:
    """Return P(X ≥ up) for X ~ Binomial(up + down, 1/2): one-sided and exact; ties are left out."""
    n = up + down
    return float(Fraction(sum(math.comb(n, k) for k in range(up, n + 1)), 2**n))


def beyond(value: float, others: Sequence[float]) -> float:
    """Return how likely one more draw is to be at least as large as a value.

    P(T_{n−1} ≥ (x − ȳ) / (s √(1 + 1/n))), exact where the others are normal. The mean gain of a
    random direction is nearly so: to first order it is an inner product with that direction.
    """
    from scipy.special import stdtr

    n = len(others)
    if n < 2:
        raise SelectionError(
            "there is nothing to compare with",
            found=f"{n} random vectors",
            expected="at least two",
            do="measure more random vectors of equal norm",
        )
    mean = sum(others) / n
    error = math.sqrt(sum((y - mean) ** 2 for y in others) / (n - 1) * (1 + 1 / n))
    if error == 0:
        return 1.0  # random vectors that change nothing, or all the same, are no comparison
    return float(stdtr(n - 1, (mean - value) / error))
