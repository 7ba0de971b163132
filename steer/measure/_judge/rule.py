"""A judge by rule: words or regular expressions."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steer.errors import ArgumentError
from steer.measure._judge.protocol import Verdict
from steer.pairs import Prompt


@dataclass(frozen=True, slots=True)
class RuleJudge:
    """Gives an answer the label whose patterns occur in it.

    An answer that contains patterns of exactly one label gets that label. Without any match it
    gets `otherwise`; with matches of several labels it is undecided (None).

    Args:
        patterns: For each label one or several regular expressions; case is ignored.
        otherwise: The label of an answer without a match; None leaves it undecided.

    Raises:
        ArgumentError: No label, a label without a pattern, or a pattern that is not a regular
            expression.
    """

    patterns: Mapping[str, str | Sequence[str]]
    otherwise: str | None = None

    def __post_init__(self) -> None:
        for label, written in self.patterns.items():
            try:
                usable = bool(_patterns(written)) and all(map(re.compile, _patterns(written)))
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
            otherwise: The label of an answer without any of them.
        """
        found = {
            label: [rf"(?<!\w){re.escape(word)}(?!\w)" for word in own]
            for label, own in words.items()
        }
        return cls(found, otherwise)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the judge can give."""
        own = tuple(self.patterns)
        return own if self.otherwise is None or self.otherwise in own else (*own, self.otherwise)

    def __call__(self, prompt: Prompt, answer: str, /) -> Verdict:
        """Return the label of an answer; the reply names all labels with a match.

        Args:
            prompt: Ignored.
            answer: The answer.
        """
        found = [
            label
            for label, written in self.patterns.items()
            if any(re.search(pattern, answer, re.IGNORECASE) for pattern in _patterns(written))
        ]
        label = self.otherwise if not found else found[0] if len(found) == 1 else None
        return Verdict(label, reply=", ".join(found))


def _patterns(written: str | Sequence[str]) -> list[str]:
    return [written] if isinstance(written, str) else list(written)


def _unusable(found: str) -> ArgumentError:
    return ArgumentError(
        "a rule judge without usable patterns",
        found=found,
        expected="at least one regular expression for each label",
        do="RuleJudge({'refuses': r'cannot|unable'}); for plain words RuleJudge.of_words",
    )
