"""A judge that looks for words or patterns."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steer.errors import SelectionError
from steer.measure._judge.protocol import Verdict
from steer.pairs import Prompt


@dataclass(frozen=True, slots=True)
class RuleJudge:
    """Gives an answer the label whose patterns occur in it.

    An answer in which patterns of exactly one label occur gets it. Where none occurs it gets
    `otherwise`; where those of several labels occur it is undecided (None), never guessed.

    Args:
        patterns: For each label its regular expressions, or one; upper and lower case count as
            the same.
        otherwise: The label of an answer in which no pattern occurs; None leaves it undecided.

    Raises:
        SelectionError: No label, a label without a pattern, or a pattern that is no regular
            expression.
    """

    patterns: Mapping[str, str | Sequence[str]]
    otherwise: str | None = None

    def __post_init__(self) -> None:
        for label, written in self.patterns.items():
            try:
                usable = bool(_listed(written)) and all(map(re.compile, _listed(written)))
            except re.error as error:
                raise _unusable(f"{label!r}: {written!r} ({error})") from error
            if not usable:
                raise _unusable(f"{label!r}: {written!r}")
        if not self.patterns:
            raise _unusable("no label")

    @classmethod
    def of_words(
        cls, words: Mapping[str, Sequence[str]], otherwise: str | None = None
    ) -> "RuleJudge":
        """Return a judge that looks for whole words or phrases, taken literally.

        Args:
            words: For each label its words or phrases.
            otherwise: The label of an answer in which none occurs.
        """
        found = {
            label: [rf"(?<!\w){re.escape(word)}(?!\w)" for word in own]
            for label, own in words.items()
        }
        return cls(found, otherwise)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it can give."""
        own = tuple(self.patterns)
        return own if self.otherwise is None or self.otherwise in own else (*own, self.otherwise)

    def __call__(self, prompt: Prompt, answer: str, /) -> Verdict:
        """Return the label of an answer; the reply names the labels whose patterns occur.

        Args:
            prompt: Not looked at.
            answer: The answer.
        """
        found = [
            label
            for label, written in self.patterns.items()
            if any(re.search(pattern, answer, re.IGNORECASE) for pattern in _listed(written))
        ]
        label = self.otherwise if not found else found[0] if len(found) == 1 else None
        return Verdict(label, reply=", ".join(found))


def _listed(written: str | Sequence[str]) -> list[str]:
    return [written] if isinstance(written, str) else list(written)


def _unusable(found: str) -> SelectionError:
    return SelectionError(
        "a rule judge without usable patterns",
        found=found,
        expected="at least one regular expression for each label",
        do="RuleJudge({'refuses': r'cannot|unable'}); for plain words RuleJudge.of_words",
    )
