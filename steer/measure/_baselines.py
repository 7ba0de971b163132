"""Baselines of steering: random vectors of equal norm, prompts, and the comparison with them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from steer._check import as_seed
from steer._progress import progress_bar
from steer.algebra import (
    Composition,
    Dense,
    Direction,
    LowRank,
    Term,
    Vector,
    as_composition,
    inner,
)
from steer.algebra._composition import Steerable
from steer.errors import SelectionError
from steer.measure._data import pairs_by_domain
from steer.measure._estimate import Estimate, mean_of
from steer.measure._interval import ShareChange
from steer.measure._judge.protocol import Judge
from steer.measure._judge.result import Judged, Wanted, check_wanted, judge_answers
from steer.measure._preference import Preference, preference, with_prefix
from steer.measure._reduce import Reduce
from steer.measure._scores import at, preferences
from steer.model import Model, check_model
from steer.pairs import Message, Pair, Pairs, as_pairs
from steer.show import Result, Row

_STEERED = "steered"
_SHOTS = 2  # worked examples of a prompted baseline
_What = TypeVar("_What", Vector, Composition)


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Baselines(Result):
    """Measurements of a steered model and of its baselines.

    Args:
        preferences: For each condition: `steered`, `unsteered`, `prompted`, `random 0`, …, and
            `tuned` if a preference-tuned model was given.
        judged: The same for generated answers; empty without a judge.
    """

    preferences: Mapping[str, Preference]
    judged: Mapping[str, Judged]

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of the conditions, `steered` first."""
        return tuple(self.preferences)

    @property
    def value(self) -> float:
        """The steered preference accuracy, in [0, 1]."""
        return self.preferences[_STEERED].value

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the steered preference accuracy."""
        return self.preferences[_STEERED].interval

    def gain(self, condition: str) -> ShareChange:
        """Return steered minus baseline preference accuracy, paired by item.

        Args:
            condition: The baseline.
        """
        return ShareChange.of(self.preferences[condition].hits, self.preferences[_STEERED].hits)

    def again(self, judge: Judge, *, give_up: bool = False) -> "Baselines":
        """Return a copy in which answers without a verdict are judged again.

        Args:
            judge: The judge.
            give_up: Whether an answer that fails again counts as undecided, with the error as its
                reply.
        """
        judged = {name: j.again(judge, give_up=give_up) for name, j in self.judged.items()}
        return replace(self, judged=judged)

    @property
    def beats_unsteered_and_random(self) -> bool:
        """Whether the gains over `unsteered` and every random vector have intervals above 0."""
        names = [n for n in self.conditions if n == "unsteered" or n.startswith("random")]
        return all(self.gain(name).interval[0] > 0 for name in names)

    @property
    def rows(self) -> list[Row]:
        """One row per condition and measure; `gain` is steered minus this condition, by item.

        A judged gain is empty without a wanted label and scores, or where some answers were not
        judged: see `again`.
        """
        return list(self._rows())

    def _rows(self) -> Iterator[Row]:
        steered = self.preferences[_STEERED]
        for name, found in self.preferences.items():
            accuracy, margin = found.rows
            moved = mean_of("gain", steered.margins - found.margins)
            yield {"condition": name, **accuracy, **_gain(name, self.gain(name))}
            yield {"condition": name, **margin, **_gain(name, moved)}
        for name, judged in self.judged.items():
            after = self.judged[_STEERED]
            change = after.change_from(judged) if after.comparable(judged) else None
            yield {"condition": name, **judged.rows[0], **_gain(name, change)}


def baselines(
    model: Model,
    what: Steerable,
    pairs: Pairs,
    *,
    instruction: str | None = None,
    shots: Pairs | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    tuned: Model | None = None,
    judge: Judge | None = None,
    wanted: Wanted = None,
    reduce: Reduce = "mean",
    progress: bool = True,
    **options: Any,
) -> Baselines:
    """Compare a steered model with the unsteered, the prompted and the randomly steered model.

    Each gets preference accuracy and margin on the same pairs, and with a judge its generated
    answers are judged.

    Args:
        model: The model; it must not be steered.
        what: The vector or composition to steer with; a composition at its own coefficients.
        pairs: Pairs that were not used for choosing.
        instruction: System message of the prompted baseline.
        shots: Other pairs; without an instruction two of them are shown as earlier turns.
        seeds: Seeds of the random directions, each with the norm of the term it replaces.
        tuned: A preference-tuned model to compare with, see `preference_tune`.
        judge: A judge of generated answers.
        wanted: The label wanted, or one for each pair; None for a judge that gives scores.
        reduce: Score answers by the mean or the sum of their tokens' log-probabilities.
        progress: Whether to show a progress bar.
        **options: As for `model.generate`, for judged answers.

    Returns:
        Every condition with its gain.

    Raises:
        ArgumentError: A wanted label that the judge cannot give.
        SteeringError: A model is being steered.
        SelectionError: No pairs, nothing to prompt with, or shots that are also measured.
    """
    for lm in (model, *([tuned] if tuned is not None else [])):
        check_model(lm, "baselines")
    pairs = pairs_by_domain({"": pairs})[""]
    shots = None if shots is None else as_pairs(shots, "shots")
    if judge is not None:
        check_wanted(judge, wanted, len(pairs))
    setting = as_composition(what)
    prefix = _prefix(instruction, shots, pairs)
    random = {f"random {seed}": random_like(setting, seed) for seed in seeds}
    found = conditions(model, setting, {"": pairs}, {"": prefix}, random, reduce, progress=progress)
    measured = {name: by_domain[""] for name, by_domain in found.items()}
    if tuned is not None:
        measured["tuned"] = preference(tuned, pairs, reduce=reduce)
    judged: dict[str, Judged] = {}
    if judge is not None:
        prompts = [pair.prompt for pair in pairs]
        knobs = {_STEERED: setting, **random}
        answers = {}
        for name in progress_bar(measured, progress=progress, desc="answers"):
            before = prefix if name == "prompted" else ()
            lm = model if name != "tuned" or tuned is None else tuned
            with lm.steered(knobs[name]) if name in knobs else nullcontext():
                answers[name] = lm.generate([with_prefix(before, p) for p in prompts], **options)
        judged = {n: judge_answers(judge, prompts, a, wanted=wanted) for n, a in answers.items()}
    return Baselines(measured, judged)


def conditions(
    model: Model,
    setting: Composition,
    parts: Mapping[str, Pairs],
    prefixes: Mapping[str, Sequence[Message]],
    others: Mapping[str, Composition],
    reduce: Reduce,
    *,
    progress: bool = False,
) -> dict[str, dict[str, Preference]]:
    """Return the preference on each domain: steered, unsteered, prompted, and by other vectors."""
    knobs = [at(setting), at(setting, 0.0), *map(at, others.values())]
    steered, base, *rest = preferences(model, knobs, parts, reduce, progress=progress)
    asked = {
        name: Pairs.of(replace(p, prompt=with_prefix(prefix, p.prompt)) for p in parts[name])
        for name, prefix in prefixes.items()
    }
    (prompted,) = preferences(model, [at(setting, 0.0)], asked, reduce) if asked else ({},)
    found = {_STEERED: steered, "unsteered": base, "prompted": prompted}
    return found | dict(zip(others, rest, strict=True))


def _prefix(instruction: str | None, shots: Pairs | None, pairs: Pairs) -> tuple[Message, ...]:
    """Return the messages of the prompted baseline; refuse shots that are also measured."""
    shared = len({pair.text for pair in shots or ()} & {pair.text for pair in pairs})
    prefix = prompt_prefix(instruction, shots or ())
    if not prefix or shared:
        raise SelectionError(
            "the prompted baseline has nothing to show, or shows pairs that are measured",
            found=f"{len(shots or ())} shots, {shared} of them among the pairs",
            expected="an instruction, or other pairs with plain prompts",
            do="instruction='Answer like …', or shots=train",
        )
    return prefix


def _gain(condition: str, found: ShareChange | Estimate | None) -> Row:
    """Return the columns of a gain, empty for the steered model itself."""
    names = ("gain", "gain low", "gain high")
    if found is None or condition == _STEERED:
        return dict.fromkeys(names)
    return dict(zip(names, (found.value, *found.interval), strict=True))


def random_like(what: _What, seed: int) -> _What:
    """Return random terms at the sites of a vector, each with the Frobenius norm of the original.

    Directions and dense arrays get normal entries, low-rank terms normal factors of equal rank;
    each is then scaled to the norm of the term it replaces.

    Args:
        what: A vector; or a composition, which keeps operators, scopes, coefficients and gate.
        seed: Seed; equal seeds give equal terms.

    Returns:
        A vector without provenance, or a composition of such vectors.

    Raises:
        ArgumentError: The seed is no integer of 64 bits.
    """
    generator = torch.Generator().manual_seed(as_seed(seed))
    if isinstance(what, Vector):
        return _random_vector(what, generator)
    parts = {
        name: replace(part, vector=_random_vector(part.vector, generator))
        for name, part in what.parts.items()
    }
    return replace(what, parts=parts)


def _random_vector(vector: Vector, generator: torch.Generator) -> Vector:
    return Vector({site: _random_term(term, generator) for site, term in vector.terms.items()})


def _random_term(term: Term, generator: torch.Generator) -> Term:
    """Return a random term with the same kind, shape, rank, dtype and norm."""
    length = max(inner(term, term), 0.0) ** 0.5
    match term:
        case Direction(v):
            return Direction(_normal(v, generator, length))
        case Dense(W):
            return Dense(_normal(W, generator, length))
        case LowRank(B, A):
            b = torch.randn(B.shape, generator=generator, dtype=torch.float64)
            a = torch.randn(A.shape, generator=generator, dtype=torch.float64) / A.shape[1] ** 0.5
            product = LowRank(b, a)
            b = b * (length / max(inner(product, product), 1e-300) ** 0.5)
            return LowRank(b.to(B), a.to(A))


def _normal(like: Tensor, generator: torch.Generator, length: float) -> Tensor:
    g = torch.randn(like.shape, generator=generator, dtype=torch.float64)
    drawn: Tensor = g * (length / g.norm())
    return drawn.to(like)


def prompt_prefix(instruction: str | None, pairs: Sequence[Pair]) -> tuple[Message, ...]:
    """Return the messages of a prompted baseline: an instruction, or else two worked examples.

    Args:
        instruction: A system message.
        pairs: Pairs that are not measured; without an instruction the first two with a plain
            prompt are shown with their chosen answers.

    Returns:
        Messages to put before every prompt; none where there is neither.
    """
    if instruction is not None:
        return (Message("system", instruction),)
    shots: list[Message] = []
    for pair in [pair for pair in pairs if isinstance(pair.prompt, str)][:_SHOTS]:
        shots += [Message("user", str(pair.prompt)), Message("assistant", pair.chosen)]
    return tuple(shots)
