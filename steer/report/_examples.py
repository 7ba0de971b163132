"""Answers to the same prompts at several strengths, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steer.algebra import CoefficientsLike, as_composition
from steer.algebra._composition import Steerable
from steer.engine import unsteered
from steer.model import Model
from steer.pairs import Prompt
from steer.show import Result, Row


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Examples(Result):
    """Answers to the same prompts under several settings.

    Args:
        prompts: The prompts.
        answers: For each setting, by name, one answer per prompt.
    """

    prompts: tuple[Prompt, ...]
    answers: Mapping[str, tuple[str, ...]]

    @property
    def rows(self) -> list[Row]:
        """One row per prompt: the prompt, and its answer under each setting."""
        return [
            {"prompt": _said(prompt), **{name: texts[k] for name, texts in self.answers.items()}}
            for k, prompt in enumerate(self.prompts)
        ]


def answered(
    model: Model,
    what: Steerable,
    prompts: Sequence[Prompt],
    settings: Mapping[str, CoefficientsLike],
    **options: Any,
) -> Examples:
    """Generate answers to the same prompts under several settings.

    Args:
        model: The model; it must not be steered.
        what: A vector, vectors by domain, or a composition.
        prompts: The prompts.
        settings: Coefficients by name: one for all domains, or by domain, dimensionless.
        **options: As for `model.generate`.

    Returns:
        The answers.

    Raises:
        SteeringError: The model is being steered.
        CompositionError: Coefficients that cannot be used.
        FitError: A vector does not fit this model.
    """
    unsteered(model.engine, "answered")
    composition = as_composition(what)
    answers = {}
    for name, coefficients in settings.items():
        with model.steered(composition, coefficients):
            answers[name] = tuple(model.generate(prompts, **options))
    return Examples(tuple(prompts), answers)


def _said(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message.role}: {message.content}" for message in prompt)
