"""Answers to the same prompts at several strengths, side by side."""

from collections.abc import Mapping
from dataclasses import dataclass

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


def _said(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message.role}: {message.content}" for message in prompt)
