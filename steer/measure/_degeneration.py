"""Degenerate text: repeated n-grams, and how much a compressor shortens an answer."""

import math
import zlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from steer._check import as_list, integer
from steer.measure._estimate import Estimate, mean_of, within
from steer.measure._interval import Headline, Share, estimate_row
from steer.show import Row

Split = Callable[[str], Sequence[Hashable]]


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Degeneration(Headline):
    """How empty, short or repetitive answers are; `value` is the repetition.

    Args:
        empty: Share of answers without a word.
        words: Words per answer.
        repetition: Share of an answer's n-grams that occurred before.
        compression: Bytes of an answer in UTF-8 per byte of `zlib.compress(…, 9)`: higher is more
            repetitive. Prose of a few sentences lies between 1 and 2; a short answer is below 1,
            since the compressed form has a header, and the empty answer is 0.
    """

    empty: Share
    words: Estimate
    repetition: Estimate
    compression: Estimate

    @property
    def _headline(self) -> Estimate:
        return self.repetition

    @property
    def rows(self) -> list[Row]:
        """One row for each of the four."""
        others = (self.words, self.repetition, self.compression)
        empty = estimate_row("empty answers", self.empty)
        return [empty, *(row for found in others for row in found.rows)]


def degeneration(answers: Sequence[str], n: int = 4, *, split: Split = str.split) -> Degeneration:
    """Return how empty, short or repetitive answers are, in one table.

    Args:
        answers: The answers, at least one.
        n: Words of an n-gram.
        split: See `repetition`.

    Raises:
        ArgumentError: n is below 1.
        SelectionError: There are no answers.
    """
    answers = as_list("answers", answers)
    counts = [len(split(answer)) for answer in answers]
    texts = [answer.encode("utf-8", "surrogatepass") for answer in answers]
    return Degeneration(
        empty=Share(counts.count(0), len(counts)),
        words=_mean("words of an answer", counts, math.inf),
        repetition=repetition(answers, n, split=split),
        compression=_mean(
            "compression (bytes / zlib bytes)",
            [len(text) / len(zlib.compress(text, 9)) for text in texts],
            math.inf,
        ),
    )


def repetition(answers: Sequence[str], n: int = 4, *, split: Split = str.split) -> Estimate:
    """Return the share of an answer's n-grams that occurred in it before, mean over answers.

    1 − different n-grams / n-grams, for each answer by itself: one minus distinct-n. An answer of
    fewer than n words repeats nothing and counts as 0, and so does the empty answer;
    `degeneration(answers).empty` counts those.

    Args:
        answers: The answers, at least one.
        n: Words of an n-gram, at least 1.
        split: From a text to its words; by default at white space. For languages written without
            spaces pass a tokenizer's `tokenize`.

    Returns:
        The mean over answers, in [0, 1], with the value of each.

    Raises:
        ArgumentError: n is below 1.
        SelectionError: There are no answers.

    Reference:
        arXiv 1510.03055, where n-grams are counted over all answers together.
    """
    n = integer("n", n, least=1)
    shares = [_repeated(split(answer), n) for answer in as_list("answers", answers)]
    return _mean(f"repeated {n}-grams", shares, 1.0)


def _repeated(words: Sequence[Hashable], n: int) -> float:
    grams = [tuple(words[k : k + n]) for k in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _mean(measure: str, items: Sequence[float], most: float) -> Estimate:
    return within(mean_of(f"{measure}, mean over answers", items), 0.0, most)
