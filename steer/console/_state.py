"""What a console shows at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Doing = Literal["nothing", "waiting", "unsteered", "steered", "done", "failed"]


@dataclass(frozen=True, slots=True)
class State:
    """A prompt, a setting of the knobs, and the two texts as far as they are written.

    Args:
        prompt: The prompt; an empty one is not answered.
        coefficients: Coefficient of every domain, dimensionless.
        max_new_tokens: Longest answer, in tokens.
        unsteered: The model's own answer.
        steered: Its answer at these coefficients.
        doing: `nothing` yet, `waiting` for another answer of the same model, writing the
            `unsteered` or the `steered` text, `done`, or `failed`.
        error: The error, if it failed.
        note: A remark on the texts, such as that the prompt is too long for the model.
    """

    prompt: str
    coefficients: Mapping[str, float]
    max_new_tokens: int = 64
    unsteered: str = ""
    steered: str = ""
    doing: Doing = "nothing"
    error: str = ""
    note: str = ""

    @property
    def question(self) -> tuple[str, int]:
        """What the unsteered text depends on."""
        return self.prompt, self.max_new_tokens
