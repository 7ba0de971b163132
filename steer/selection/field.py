"""What a selection measures on: the model, pairs to choose with, neutral texts and limits."""

from collections.abc import Mapping
from dataclasses import dataclass

from steer.evaluate.judge.protocol import Judge
from steer.evaluate.kl import NeutralText
from steer.evaluate.reduce import Reduce
from steer.model import Model
from steer.pairs import Pairs
from steer.selection.candidates import Candidate
from steer.selection.evaluator import Evaluator
from steer.selection.limits import Limits
from steer.selection.setting import Objective


@dataclass(frozen=True, eq=False, slots=True)
class Field:
    """The candidates of a selection, and what they are measured on.

    Args:
        model: The model.
        candidates: What there is to choose from.
        pairs: Validation pairs by domain.
        moved: The domains that are asked to move.
        limits: What a setting must keep.
        objective: What is to be large, of the numbers of the domains that are asked to move.
        reduce: Score answers by the mean or the sum of their tokens' log-probabilities.
        fisher: Neutral text that the screen estimates KL on.
        text: Neutral text that settings are measured on; None to measure no KL.
        judge: A judge of answers, and the label that is wanted; None without one.
        seed: Seed of whatever is drawn.
        progress: Whether to show progress bars.
        both_ways: Whether the negated setting counts too, on swapped pairs.
    """

    model: Model
    candidates: tuple[Candidate, ...]
    pairs: Mapping[str, Pairs]
    moved: tuple[str, ...]
    limits: Limits
    objective: Objective
    reduce: Reduce
    fisher: NeutralText | None
    text: NeutralText | None
    judge: tuple[Judge, str | None] | None
    seed: int
    progress: bool
    both_ways: bool

    def evaluator(
        self, pairs: Mapping[str, Pairs], text: NeutralText | None, *, progress: bool = False
    ) -> Evaluator:
        """Return what measures settings.

        Args:
            pairs: Pairs by domain.
            text: Neutral text; None to measure no side effects.
            progress: Whether to show a bar that counts settings.
        """
        return Evaluator(
            self.model,
            pairs,
            self.moved,
            self.objective,
            text,
            self.reduce,
            both_ways=self.both_ways,
            progress=progress,
        )
