"""Log-probabilities of given answers under many settings of one composition at once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from steer.algebra import CoefficientsLike, Composition, DomainGate, Weight
from steer.algebra._coefficients import coefficient_rows
from steer.engine import Batch, HooksEngine, injector_of
from steer.engine._branches.branches import branched_scores
from steer.engine._branches.trial import fastest_tokens, uncut_reason
from steer.engine._reading import keep_freed_memory
from steer.errors import CapabilityError
from steer.model import Model, exchange_batch
from steer.model._batch import check_lengths
from steer.pairs import Prompt

_TOGETHER = 64  # settings that are scored beside each other behind a gate
_PLAIN_ROWS = 512  # rows scored at once where each setting runs through the whole model
Done = Callable[[int], object]
_Row = tuple[float, ...]
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False, slots=True)
class Likelihoods:
    """Log-probabilities of given responses under many settings.

    Args:
        logprobs: For each response `[setting pos]`, in nats.
        way: How they were computed: `branched`, or `plain` and why.
    """

    logprobs: tuple[Float[Tensor, "setting pos"], ...]
    way: str


@runtime_checkable
class Requests(Protocol):
    """An engine whose requests each have their own coefficients, such as `steer.serving.VLLM`."""

    model_id: str
    composition: Composition

    def at(self, what: Composition) -> Self:
        """Return the engine with a composition of its vectors, or refuse it."""

    def logprobs(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        coefficients: CoefficientsLike | None = None,
    ) -> list[Float[Tensor, " pos"]]:
        """Return the log-probabilities of each response under its own row of coefficients."""


class RequestScorer:
    """What `Scorer` is, where every text under every setting is a request of one batch."""

    def __init__(
        self, engine: Requests, prompts: Sequence[Prompt], responses: Sequence[str]
    ) -> None:
        self._engine, self._prompts, self._responses = engine, list(prompts), list(responses)

    def __call__(self, settings: CoefficientsLike, done: Done = lambda n: None) -> Likelihoods:
        """Return the log-probabilities under some settings."""
        rows, _ = coefficient_rows(settings, self._engine.composition.domains)
        texts, count = len(self._prompts), len(rows)
        each = rows.repeat_interleave(texts, dim=0)
        found = self._engine.logprobs(self._prompts * count, self._responses * count, each)
        done(texts * count)
        scored = tuple(torch.stack(found[k::texts]) for k in range(texts))
        return Likelihoods(scored, "requests of one batch")


def likelihoods(
    model: Model,
    composition: Composition,
    settings: CoefficientsLike,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    *,
    max_tokens: int | None = None,
    done: Done = lambda n: None,
) -> Likelihoods:
    """Return what `model.logprobs` gives under each of many settings, computed together.

    What lies below the first steered layer is computed once, and so is everything before the
    first steered token. Where that cannot be done (weight sites, a model whose attention cannot
    be followed, a model that is steered already) every setting runs through the whole model, and
    `way` says why.

    Args:
        model: The model.
        composition: Vectors, operators, scopes and gate; its own coefficients are not used.
        settings: `[setting domain]`, one row per setting, dimensionless; or rows as mappings.
        prompts: One prompt per response.
        responses: The responses, scored as the assistant's turn.
        max_tokens: Tokens of one forward; by default what is measured to be fastest.
        done: Called as work goes on with a number of (response, setting), in all about all of them.

    Returns:
        The log-probabilities, and how they were computed.

    Raises:
        CompositionError: The settings do not go with the composition.
        FitError: A vector does not fit this model.
        TextError: Prompts and responses differ in number, or one cannot be rendered.
    """
    return Scorer(model, composition, prompts, responses, max_tokens=max_tokens)(settings, done)


class Scorer:
    """Scores given responses under settings that come a few at a time (see `likelihoods`).

    Behind a gate a prompt sees only the coefficients of the domains it opens; settings that are
    the same to it are scored once, also when they come in different calls. With `foreseen`, all
    settings that will be asked for, each is scored beside the same others whatever was asked
    before, so that its rounding does not depend on the order.
    """

    def __init__(
        self,
        model: Model,
        composition: Composition,
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        *,
        max_tokens: int | None = None,
        foreseen: Float[Tensor, "setting domain"] | None = None,
    ) -> None:
        self._model, self._composition = model, composition
        self._prompts, self._responses = list(prompts), list(responses)
        self._max_tokens, self._foreseen = max_tokens, foreseen
        self._batch = exchange_batch(model.chat, prompts, responses)
        check_lengths(model.architecture, self._batch, prompts)
        self._plain = ""
        self._patterns: dict[_Row, list[int]] = {}
        self._known: dict[_Row, dict[_Row, list[Tensor]]] = {}

    def __call__(self, settings: CoefficientsLike, done: Done = lambda n: None) -> Likelihoods:
        """Return the log-probabilities under some settings."""
        rows, _ = coefficient_rows(settings, self._composition.domains)
        self._model.steered(self._composition, rows)  # refuses what does not fit; attaches nothing
        longest = max((len(ids) for ids in self._batch.ids), default=1)
        self._plain = plain_reason(self._model, self._composition, longest)
        if not self._plain:
            keep_freed_memory()
        if isinstance(self._model.engine, HooksEngine):
            found = self._behind_gate(rows, done)
        else:  # its gate is its own
            found = self._plainly(self._composition, rows, range(len(self._prompts)), done)
        return Likelihoods(tuple(found), f"plain: {self._plain}" if self._plain else "branched")

    def _behind_gate(self, settings: Tensor, done: Done) -> list[Tensor]:
        """Score texts in groups that a gate opens alike, each group under its distinct settings."""
        self._patterns = self._patterns or self._opened()
        found: list[Tensor] = [torch.empty(0)] * len(self._batch.ids)
        for pattern, texts in self._patterns.items():
            seen, which = _different(settings, pattern)
            if all(pattern):  # no two settings of a grid are the same
                share = len(settings) / len(seen)
                scored = self._run(seen, texts, lambda n, s=share: done(round(n * s)))  # type: ignore[misc]
            else:
                scored = self._remembered(pattern, seen, texts)
                done(len(settings) * len(texts))
            for text, scores in zip(texts, scored, strict=True):
                found[text] = scores[which]
        return found

    def _remembered(self, pattern: _Row, settings: Tensor, texts: Sequence[int]) -> list[Tensor]:
        """Score some texts under settings that are not known from earlier calls."""
        known, rows = self._known.setdefault(pattern, {}), _rows(settings)
        new = set(rows) - known.keys()
        beside = settings[[row in new for row in rows]]
        if self._foreseen is not None:
            beside = _different(self._foreseen, pattern)[0]
        for block in beside.split(_TOGETHER):
            there = _rows(block)
            if not new.isdisjoint(there):
                scored = self._run(block, texts, lambda n: None)
                known |= {row: [s[k] for s in scored] for k, row in enumerate(there)}
        return [torch.stack(list(text)) for text in zip(*(known[row] for row in rows), strict=True)]

    def _run(self, settings: Tensor, texts: Sequence[int], done: Done) -> list[Tensor]:
        """Score some texts under settings that the gate has already been applied to."""
        if self._plain:
            return self._plainly(self._composition.gated(None), settings, texts, done)
        ids, lengths = self._batch.ids, self._batch.prompt_lengths
        scores = branched_scores(
            self._model.architecture,
            self._composition,
            settings,
            Batch(tuple(ids[t] for t in texts), tuple(lengths[t] for t in texts)),
            max_tokens=self._max_tokens or fastest_tokens(self._model.architecture),
            done=done,
        )
        return [text[..., 0] for text in scores]

    def _plainly(
        self, composition: Composition, settings: Tensor, texts: Sequence[int], done: Done
    ) -> list[Tensor]:
        """Score some texts by whole forwards, a row for each text and setting where that goes."""
        prompts = [self._prompts[t] for t in texts]
        responses = [self._responses[t] for t in texts]
        found = []
        for rows in through(
            self._model,
            composition,
            settings,
            len(texts),
            _PLAIN_ROWS,
            lambda n: self._model.logprobs(prompts * n, responses * n),
        ):
            found.append(rows)
            done(len(texts))
        return [torch.stack(rows) for rows in zip(*found, strict=True)]

    def _opened(self) -> dict[_Row, list[int]]:
        """Return the texts by how far the gate opens each domain for their prompts."""
        gate, domains = self._composition.gate, self._composition.domains
        found: dict[_Row, list[int]] = {}
        if gate is None:
            return {(1.0,) * len(domains): list(range(len(self._batch.ids)))}
        for k, row in enumerate(gate_weights(self._model, gate, domains, self._batch)):
            found.setdefault(row, []).append(k)
        return found


def through(
    model: Model,
    composition: Composition,
    settings: Float[Tensor, "setting domain"],
    texts: int,
    most: int,
    read: Callable[[int], list[_T]],
    *,
    strict: bool = True,
) -> Iterator[list[_T]]:
    """Yield for each setting what `read` returns of the texts, in forwards of at most `most` rows.

    `read(n)` runs the texts n times in one batch and returns a value for each row.
    """
    for part in settings.split(max(1, most // max(1, texts))):
        try:
            rows = part.repeat_interleave(texts, dim=0)
            with model.steered(composition, rows, strict=strict):
                found = read(len(part))
        except CapabilityError:  # weights that are merged have one setting at a time
            for setting in part:
                with model.steered(composition, setting, strict=strict):
                    found = read(1)
                yield found
        else:
            yield from (found[k * texts : (k + 1) * texts] for k in range(len(part)))


def gate_weights(
    model: Model, gate: DomainGate, domains: Sequence[str], batch: Batch
) -> list[tuple[float, ...]]:
    """Return how far a gate opens some domains for the prompt of each text."""
    asked = [ids[:n] for ids, n in zip(batch.ids, batch.prompt_lengths, strict=True)]
    prompts = tuple(dict.fromkeys(asked))
    opened: dict[tuple[int, ...], _Row] = {}
    for piece in Batch(prompts, tuple(map(len, prompts))).pieces(4096):
        streams = model.engine.forward(piece, layers=[gate.layer], logits="none").residual
        weights = gate(torch.stack([stream[0, -1] for stream in streams]))
        opened |= zip(piece.ids, _rows(weights[:, gate.columns(domains)]), strict=True)
    return [opened[prompt] for prompt in asked]


def plain_reason(model: Model, composition: Composition, longest: int) -> str:
    """Return why settings run through the whole model; an empty text if they need not."""
    if not isinstance(model.engine, HooksEngine):
        return f"the engine {model.engine.name} cannot be cut at a block"
    if any(isinstance(site, Weight) for site in composition.sites):
        return "weights are displaced"
    if any(part.scope.marker is not None for part in composition.parts.values()):
        return "a scope is found by its marker"
    if composition.gate is not None and composition.gate.layer < 0:
        return "the gate reads the embedding"
    if injector_of(model.architecture).stack:
        return "the model is steered already"
    return uncut_reason(model.architecture, longest)


def _different(settings: Tensor, pattern: _Row) -> tuple[Tensor, Tensor]:
    """Return the distinct settings behind a gate, and the number of each setting among them."""
    effective = settings * torch.tensor(pattern) + 0.0  # no −0.0 beside 0.0
    return torch.unique(effective, dim=0, return_inverse=True)  # type: ignore[no-any-return]


def _rows(table: Tensor) -> list[_Row]:
    return [tuple(row) for row in table.tolist()]
