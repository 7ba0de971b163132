"""What is measured at each setting of a sweep, from the likelihoods of given answers."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steer.errors import SelectionError
from steer.evaluate.levels import LevelPreference
from steer.evaluate.preference import Preference
from steer.evaluate.reduce import Reduce
from steer.listed import listed
from steer.model import Model
from steer.pairs import Pairs, Prompt, as_pairs
from steer.shown import Shown
from steer.text import as_prompts

if TYPE_CHECKING:
    from steer.show.card import Card

Numbers = Mapping[str, float]
_WHOLE = 2**53  # below it floats hold every whole number
Likelihood = Literal["preference", "levels"]
Measure = Likelihood | Callable[[Model, Any], Numbers]


@dataclass(frozen=True, slots=True, repr=False)
class Answers(Shown):
    """Prompts with one reference answer of each of several levels.

    Args:
        prompts: The prompts, at least one: texts, or messages as `model.generate` takes them.
        answers: For each of at least two levels, one answer per prompt.

    Raises:
        SelectionError: No prompt, fewer than two levels, or answers of another number.
        TextError: A prompt is neither a text nor messages.
    """

    prompts: Sequence[Prompt]
    answers: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompts", as_prompts(self.prompts))
        named = {level: listed(f"answers of {level!r}", a) for level, a in self.answers.items()}
        object.__setattr__(self, "answers", named)
        counts = {level: len(texts) for level, texts in self.answers.items()}
        if not self.prompts or len(counts) < 2 or set(counts.values()) != {len(self.prompts)}:
            raise SelectionError(
                "levels cannot be compared",
                found=f"{len(self.prompts)} prompts, answers by level: {counts}",
                expected="at least one prompt, and one answer of each of two or more levels for it",
                do="give every level as many answers as there are prompts",
            )

    def _card(self) -> "Card":
        from steer.measure.show import answers_card

        return answers_card(self)


Data = Pairs | Answers | Mapping[str, Pairs | Answers]


@dataclass(frozen=True, slots=True)
class Asked:
    """The texts of one domain of the data, and what is made of their likelihoods.

    Args:
        prompts: One prompt per response.
        responses: The responses: all of the first kind (chosen, or a level), then the next.
        kinds: Names of the kinds.
    """

    prompts: tuple[Prompt, ...]
    responses: tuple[str, ...]
    kinds: tuple[str, ...]

    def numbers(self, scores: Float[Tensor, " pair"], measure: str, reduce: Reduce) -> Numbers:
        """Return what is measured under one setting; NaN where a score is not finite.

        Args:
            scores: Score of each response, in nats.
            measure: `preference` or `levels`.
            reduce: How scores were made of tokens.
        """
        if not bool(torch.isfinite(scores).all()):
            known = self.numbers(torch.zeros_like(scores), measure, reduce)
            return {name: x if name == "n" else math.nan for name, x in known.items()}
        table = scores.reshape(len(self.kinds), -1)
        if measure == "preference":
            found = Preference(table[0], table[1], reduce)
            low, high = found.accuracy.interval
            return {
                "n": found.accuracy.n,
                "accuracy": found.accuracy.value,
                "low": low,
                "high": high,
                "margin": found.margin,
                "likelihood": float(found.chosen.mean()),
            }
        levels = LevelPreference(table.T, self.kinds, reduce)
        numbers: dict[str, float] = {"n": table.shape[1]}
        for kind in self.kinds:
            share = levels.accuracy(kind)
            low, high = share.interval
            numbers |= {f"{kind}": share.value, f"{kind}.low": low, f"{kind}.high": high}
        return numbers


def by_domain(data: Data) -> dict[str, Pairs | Answers]:
    """Return the data of each domain, under `all` where there is none.

    Args:
        data: Pairs, answers by level, or either of them by domain.

    Raises:
        SelectionError: There is nothing, or it is of another kind.
        PairsError: Something in a list is no pair, or some pairs name a domain and others none.
    """
    if isinstance(data, Answers):
        found: dict[str, Pairs | Answers] = {"all": data}
    elif isinstance(data, Mapping):
        found = {
            name: part if isinstance(part, Answers) else as_pairs(part, f"pairs of {name!r}")
            for name, part in data.items()
        }
    else:
        pairs = as_pairs(data)
        named = pairs.by_domain() if pairs.domains else {"all": pairs}
        found = {str(name): part for name, part in named.items()}
    empty = [name for name, part in found.items() if isinstance(part, Pairs) and not len(part)]
    if not found or empty:
        raise SelectionError(
            "there is nothing to measure on",
            found=f"{type(data).__name__}, without pairs: {empty}",
            expected="Pairs, Answers, or a mapping from domain to one of them",
            do="check the split or the domain's name",
        )
    return found


def pairs_by_domain(data: Pairs | Mapping[str, Pairs]) -> dict[str, Pairs]:
    """Return the pairs of each domain, under `all` where there is none.

    Args:
        data: Pairs, or pairs by domain.

    Raises:
        SelectionError: There are none, or something else than pairs.
    """
    found = by_domain(data)
    pairs = {name: part for name, part in found.items() if isinstance(part, Pairs)}
    if len(pairs) < len(found):
        raise SelectionError(
            "there is nothing to measure on",
            found=f"no pairs of {sorted(found.keys() - pairs.keys())}",
            expected="Pairs, or a mapping from domain to pairs",
            do="answers of levels are for a sweep with measure='levels'",
        )
    return pairs


def asked(part: Pairs | Answers, measure: str) -> Asked:
    """Return the texts of one domain.

    Args:
        part: Its data.
        measure: `preference` for pairs, `levels` for answers.

    Raises:
        SelectionError: Data and measure do not go together.
    """
    if measure == "preference" and isinstance(part, Pairs):
        kinds = {"chosen": [p.chosen for p in part], "rejected": [p.rejected for p in part]}
        prompts: Sequence[Prompt] = [pair.prompt for pair in part]
    elif measure == "levels" and isinstance(part, Answers):
        kinds = {level: list(texts) for level, texts in part.answers.items()}
        prompts = part.prompts
    else:
        raise SelectionError(
            "data and measure do not go together",
            found=f"measure {measure!r} on {type(part).__name__}",
            expected="'preference' on Pairs, 'levels' on Answers, or a function",
            do="pass the other measure or other data",
        )
    responses = tuple(text for texts in kinds.values() for text in texts)
    return Asked(tuple(prompts) * len(kinds), responses, tuple(kinds))


def checked(found: Mapping[str, float], where: str) -> dict[str, float]:
    """Return what a function returned as plain numbers, NaN where one is not finite.

    Args:
        found: Name to number.
        where: Setting and domain, for the error.

    Raises:
        SelectionError: There is nothing, a name is no valid text, or a number is none.
    """
    try:
        numbers = {name: _plain(value) for name, value in found.items()}
    except (AttributeError, TypeError, ValueError):
        numbers = {}
    if not numbers or not all(isinstance(name, str) and _is_unicode(name) for name in numbers):
        raise SelectionError(
            f"a measure returned what cannot be kept, {where}",
            found=repr(found)[:200],
            expected="at least one number by name, and names that UTF-8 can hold",
            do="return for instance {'accuracy': 0.75}",
        )
    return numbers


def _plain(given: Any) -> float:
    """Return a number as it is kept: whole if it was, NaN if it is not finite or too large."""
    try:
        value = float(given)
    except OverflowError:
        return math.nan
    if not math.isfinite(value):
        return math.nan
    return int(given) if isinstance(given, int) and abs(value) < _WHOLE else value


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
