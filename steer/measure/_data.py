"""What is measured on: pairs or answers by domain, their texts, and numbers of their scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from steer._check import as_list
from steer.errors import SelectionError
from steer.model import Model
from steer.network import as_prompts
from steer.pairs import Pairs, Prompt, as_pairs
from steer.show import Card, Shown
from steer.show._text import plain

Numbers = Mapping[str, float]
Measured = Mapping[str, Numbers]  # by domain of the data
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
        named = {level: as_list(f"answers of {level!r}", a) for level, a in self.answers.items()}
        object.__setattr__(self, "answers", named)
        counts = {level: len(texts) for level, texts in self.answers.items()}
        if not self.prompts or len(counts) < 2 or set(counts.values()) != {len(self.prompts)}:
            raise SelectionError(
                "levels cannot be compared",
                found=f"{len(self.prompts)} prompts, answers by level: {counts}",
                expected="at least one prompt, and one answer of each of two or more levels for it",
                do="give every level as many answers as there are prompts",
            )

    def _card(self) -> Card:
        first = {"prompt": self.prompts[0]} | {n: a[0] for n, a in [*self.answers.items()][:12]}
        facts = [("levels", ", ".join(self.answers))]
        facts += [(name, plain(repr(text), 72)) for name, text in first.items()]
        said = f"Answers: {len(self.prompts)} prompts, {len(self.answers)} levels"
        return Card(said, tuple(facts))


Data = Pairs | Answers | Mapping[str, Pairs | Answers]


def by_domain(data: Data) -> dict[str, Pairs | Answers]:
    """Return the data of each domain, under `all` where there is none."""
    found: dict[str, Pairs | Answers] = {}
    if isinstance(data, Answers):
        found["all"] = data
    elif isinstance(data, Mapping):
        for name, part in data.items():
            what = f"pairs of {name!r}"
            found[name] = part if isinstance(part, Answers) else as_pairs(part, what)
    else:
        pairs = as_pairs(data)
        found |= (
            {str(n): p for n, p in pairs.by_domain().items()} if pairs.domains else {"all": pairs}
        )
    empty = [name for name, part in found.items() if isinstance(part, Pairs) and not len(part)]
    if not found or empty:
        raise _nothing(f"{type(data).__name__}, without pairs: {empty}")
    return found


def pairs_by_domain(data: Pairs | Mapping[str, Pairs]) -> dict[str, Pairs]:
    """Return the pairs of each domain as `by_domain`, and refuse answers of levels."""
    found = by_domain(data)
    pairs = {name: part for name, part in found.items() if isinstance(part, Pairs)}
    if len(pairs) < len(found):
        raise _nothing(f"no pairs of {sorted(found.keys() - pairs.keys())}")
    return pairs


def _nothing(found: str) -> SelectionError:
    return SelectionError(
        "there is nothing to measure on",
        found=found,
        expected="Pairs, or a mapping from domain to Pairs; for a sweep Answers as well",
        do="check the split or the domain's name",
    )
