"""What a setting may cost: limits on KL, perplexity and what happens to other domains."""

import math
from dataclasses import dataclass, fields

from steer.errors import SelectionError
from steer.selection.setting import SettingResult


@dataclass(frozen=True, slots=True)
class Limits:
    """Side effects that a chosen setting must not exceed; None sets no limit.

    Args:
        kl: Most KL(steered‖unsteered) on neutral text, nats per response token.
        perplexity: Most perplexity(steered) / perplexity(unsteered) on the same text, a factor.
        off_target: Most off-target drop, in [0, 1]: over the domains of the held-out pairs that
            are not asked to move, the largest of accuracy(unsteered) − accuracy(steered), and
            0 where no accuracy falls.

    Raises:
        SelectionError: A limit is negative or no number.
    """

    kl: float | None = None
    perplexity: float | None = None
    off_target: float | None = None

    def __post_init__(self) -> None:
        for name in self.names:
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and value >= 0):
                raise SelectionError(
                    f"the limit {name!r} cannot be kept",
                    found=repr(value),
                    expected="a number of at least 0, or None for no limit",
                    do=f"Limits({name}=0.5)",
                )

    @property
    def names(self) -> tuple[str, ...]:
        """The limits that are set."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name) is not None)

    def excess(self, result: SettingResult) -> dict[str, float]:
        """Return by how much a setting exceeds each limit that is set; at most 0 if it keeps it.

        What was not measured, or is not finite, exceeds it by infinity.

        Args:
            result: What was measured there.
        """
        measured = {name: getattr(result, name) for name in self.names}
        found = {name: math.nan if value is None else value for name, value in measured.items()}
        return {
            name: value - getattr(self, name) if math.isfinite(value) else math.inf
            for name, value in found.items()
        }

    def violation(self, result: SettingResult) -> float:
        """Return Σ max(0, excess / limit), which is 0 exactly where every limit is kept.

        Args:
            result: What was measured there.
        """
        over = self.excess(result).items()
        return math.fsum(max(0.0, by) / max(getattr(self, name), 1e-9) for name, by in over)
