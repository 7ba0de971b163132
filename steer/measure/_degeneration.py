"""Degenerate text: repeated n-grams, and how much a compressor shortens an answer."""

import zlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from steer._check import as_list, integer
from steer.measure._estimate import Estimate, mean_of, within
from steer.measure._interval import Share, estimate_row
from steer.show import Result, Row

Split = Callable[[str], Sequence[Hashable]]


def distinct(answers: Sequence[str], n: int = 2, *, split: Split = str.split) -> Estimate:
    """Return distinct-n: the share of an answer's n-grams that are different, mean over answers.

    different n-grams / n-grams, for each answer by itself. An answer of fewer than n words has no
    n-gram and repeats nothing: it counts as 1, and so does the empty answer.

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
    return _estimate(
        f"distinct {n}-grams", [1 - _repeated(split(a), n) for a in as_list("answers", answers)]
    )


def repetition(answers: Sequence[str], n: int = 4, *, split: Split = str.split) -> Estimate:
    """Return the share of an answer's n-grams that occurred in it before, mean over answers.

    1 − different n-grams / n-grams: one minus `distinct`. An answer of fewer than n words counts
    as 0, and so does the empty answer; `degeneration(answers).empty` counts those.

    Args:
        answers: The answers, at least one.
        n: Words of an n-gram, at least 1.
        split: See `distinct`.

    Returns:
        The mean over answers, in [0, 1], with the value of each.

    Raises:
        ArgumentError: n is below 1.
        SelectionError: There are no answers.
    """
    return _estimate(
        f"repeated {n}-grams", [_repeated(split(a), n) for a in as_list("answers", answers)]
    )


def compression(answers: Sequence[str]) -> Estimate:
    """Return the factor by which zlib shortens an answer, mean over answers.

    bytes of the answer in UTF-8 / bytes of `zlib.compress(…, 9)`: higher is more repetitive. Prose
    of a few sentences lies between 1 and 2; a short answer is below 1, since the compressed form
    has a header, and the empty answer is 0 / 8 = 0.

    Args:
        answers: The answers, at least one.

    Returns:
        The mean over answers, at least 0, with the value of each.

    Raises:
        SelectionError: There are no answers.
    """
    texts = [answer.encode("utf-8", "surrogatepass") for answer in as_list("answers", answers)]
    ratios = [len(text) / len(zlib.compress(text, 9)) for text in texts]
    return within(_mean("compression (bytes / zlib bytes)", ratios), 0.0, float("inf"))


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Degeneration(Result):
    """How empty, short or repetitive answers are.

    Args:
        empty: Share of answers without a word.
        words: Words per answer.
        repetition: Share of an answer's n-grams that occurred before.
        compression: Bytes of an answer per byte of its zlib form.
    """

    empty: Share
    words: Estimate
    repetition: Estimate
    compression: Estimate

    @property
    def value(self) -> float:
        """The repetition, in [0, 1]."""
        return self.repetition.value

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the repetition."""
        return self.repetition.interval

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
        split: See `distinct`.

    Raises:
        ArgumentError: n is below 1.
        SelectionError: There are no answers.
    """
    answers = as_list("answers", answers)
    counts = [len(split(answer)) for answer in answers]
    return Degeneration(
        empty=Share(counts.count(0), len(counts)),
        words=within(_mean("words of an answer", counts), 0.0, float("inf")),
        repetition=repetition(answers, n, split=split),
        compression=compression(answers),
    )


def _repeated(words: Sequence[Hashable], n: int) -> float:
    n = integer("n", n, least=1)
    grams = [tuple(words[k : k + n]) for k in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _estimate(measure: str, items: Sequence[float]) -> Estimate:
    return within(_mean(measure, items), 0.0, 1.0)


def _mean(measure: str, items: Sequence[float]) -> Estimate:
    return mean_of(f"{measure}, mean over answers", items)
