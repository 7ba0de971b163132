"""Counts over the texts of responses that give away the chosen one without any model."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

MOST_DIFFERENT = 8  # multiple-choice data sets have up to eight letters
_MUCH = 2
_COMPARED = 200  # characters of a response


@dataclass(frozen=True, slots=True)
class Responses:
    """Counts over the responses of pairs.

    Responses are compared by the letters and digits of their first 200 characters, whatever the
    case.
    """

    pairs: int
    much_longer: int
    much_shorter: int
    counts: Mapping[str, tuple[int, int]] | None

    def __post_init__(self) -> None:
        if self.counts is not None:
            object.__setattr__(self, "counts", MappingProxyType(dict(sorted(self.counts.items()))))

    def __reduce__(self) -> tuple[object, ...]:
        counts = None if self.counts is None else dict(self.counts)
        return (Responses, (self.pairs, self.much_longer, self.much_shorter, counts))

    @classmethod
    def of(cls, texts: Iterable[tuple[str, str]]) -> "Responses":
        """Return the counts of some pairs."""
        chosen: Counter[str] = Counter()
        rejected: Counter[str] = Counter()
        lengths = []
        for good, bad in texts:
            chosen[_compared(good)] += 1
            rejected[_compared(bad)] += 1
            lengths.append((len(good.strip()), len(bad.strip())))
        return cls(
            len(lengths),
            sum(a >= _MUCH * b for a, b in lengths),
            sum(b >= _MUCH * a for a, b in lengths),
            _few({text: (chosen[text], rejected[text]) for text in {**chosen, **rejected}}),
        )

    def join(self, other: "Responses") -> "Responses":
        """Return the counts of both sets of pairs together."""
        counts = None
        if self.counts is not None and other.counts is not None:
            both = {**self.counts, **other.counts}
            sides = [(self.counts.get(t, (0, 0)), other.counts.get(t, (0, 0))) for t in both]
            sums = [(a + c, b + d) for (a, b), (c, d) in sides]
            counts = _few(dict(zip(both, sums, strict=True)))
        return Responses(
            self.pairs + other.pairs,
            self.much_longer + other.much_longer,
            self.much_shorter + other.much_shorter,
            counts,
        )


def _compared(text: str) -> str:
    return re.sub(r"\W+", " ", text[:_COMPARED]).strip().casefold() or text.strip()


def _few(counts: Mapping[str, tuple[int, int]]) -> Mapping[str, tuple[int, int]] | None:
    return counts if len(counts) <= MOST_DIFFERENT else None
