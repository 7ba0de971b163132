"""How likely given answers are under many settings of the knobs at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steer.batch import check_lengths, exchange_batch
from steer.composition import CoefficientsLike, Composition, coefficient_rows
from steer.engine.base import Batch
from steer.engine.branches.branches import branched_logprobs
from steer.engine.branches.trial import fastest_tokens, uncut_reason
from steer.engine.hooks import HooksEngine
from steer.engine.injector import injector_of
from steer.engine.reading import keep_freed_memory
from steer.errors import CapabilityError
from steer.model import Model
from steer.pairs import Prompt
from steer.site import Weight

_TOGETHER = 64  # settings that are scored beside each other behind a gate
_PLAIN_ROWS = 512  # rows scored at once where each setting runs through the whole model
Done = Callable[[int], object]
_Pattern = tuple[float, ...]  # how far each domain is open


@dataclass(frozen=True, eq=False, slots=True)
class Likelihoods:
    """Log-probabilities of given responses under many settings.

    Args:
        logprobs: For each response `[setting pos]`, in nats.
        way: How they were computed: `branched`, or `plain` and why.
    """

    logprobs: tuple[Float[Tensor, "setting pos"], ...]
    way: str


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
    """Scores given responses under settings that come a few at a time.

    The texts are encoded once. Behind a gate a prompt sees only the coefficients of the domains
    it opens; settings that are the same to it are scored once, also when they come in different
    calls. With `foreseen`, such a setting is always scored beside the same others, so that its
    rounding does not depend on what was asked before.

    Args:
        model: The model; its weights must stay what they are.
        composition: Vectors, operators, scopes and gate; its own coefficients are not used.
        prompts: One prompt per response.
        responses: The responses, scored as the assistant's turn.
        max_tokens: Tokens of one forward; by default what is measured to be fastest.
        foreseen: `[setting domain]`, every setting that will be asked for, if that is known.

    Raises:
        TextError: Prompts and responses differ in number, or one cannot be rendered.
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
        self._patterns: dict[_Pattern, list[int]] | None = None
        self._known: dict[_Pattern, dict[tuple[float, ...], list[Tensor]]] = {}

    def __call__(self, settings: CoefficientsLike, done: Done = lambda n: None) -> Likelihoods:
        """Return the log-probabilities under some settings.

        Args:
            settings: `[setting domain]`, one row per setting, dimensionless; or rows as mappings.
            done: Called as work goes on with a number of (response, setting).

        Raises:
            CompositionError: The settings do not go with the composition.
            FitError: A vector does not fit this model.
        """
        rows, _ = coefficient_rows(settings, self._composition.domains)
        self._model.steered(self._composition, rows)  # refuses what does not fit; attaches nothing
        longest = max((len(ids) for ids in self._batch.ids), default=1)
        self._plain = plain_reason(self._model, self._composition, longest)
        if not isinstance(self._model.engine, HooksEngine):  # its gate is its own
            texts = self._prompts, self._responses
            found = _plainly(self._model, self._composition, rows, *texts, done)
        else:
            if not self._plain:
                keep_freed_memory()
            found = self._by_pattern(rows, done)
        return Likelihoods(tuple(found), f"plain: {self._plain}" if self._plain else "branched")

    def _by_pattern(self, settings: Tensor, done: Done) -> list[Tensor]:
        """Score the texts that one gate pattern is shared by, and each different setting once."""
        if self._patterns is None:
            self._patterns = _patterns(self._model, self._composition, self._batch)
        found: list[Tensor] = [torch.empty(0)] * len(self._batch.ids)
        for pattern, texts in self._patterns.items():
            different, which = _different(settings, pattern)
            share = len(settings) / len(different)
            scored = self._scored(
                pattern,
                texts,
                different,
                lambda n, share=share: done(round(n * share)),  # type: ignore[misc]
            )
            for text, scores in zip(texts, scored, strict=True):
                found[text] = scores[which]
        return found

    def _scored(
        self, pattern: _Pattern, texts: Sequence[int], settings: Tensor, done: Done
    ) -> list[Tensor]:
        """Score some texts under different settings, those known from earlier calls not again."""
        if all(pattern):  # every setting of a grid differs here: nothing would be met again
            return self._run(texts, settings, done)
        known = self._known.setdefault(pattern, {})
        rows = [tuple(row) for row in settings.tolist()]
        wanted = set(rows) - known.keys()
        for block in self._blocks(pattern, settings):
            keys = [tuple(row) for row in block.tolist()]
            if not wanted.isdisjoint(keys):
                scored = self._run(texts, block, lambda n: None)
                known |= {key: [s[k] for s in scored] for k, key in enumerate(keys)}
        done(len(rows) * len(texts))
        return [torch.stack(list(row)) for row in zip(*(known[r] for r in rows), strict=True)]

    def _blocks(self, pattern: _Pattern, settings: Tensor) -> Sequence[Tensor]:
        """Return the settings that are scored beside each other."""
        if self._foreseen is not None:
            return list(_different(self._foreseen, pattern)[0].split(_TOGETHER))
        known = self._known[pattern]
        new = [k for k, row in enumerate(settings.tolist()) if tuple(row) not in known]
        return [settings[new]] if new else []

    def _run(self, texts: Sequence[int], settings: Tensor, done: Done) -> list[Tensor]:
        """Score some texts; the gate stands in the settings already."""
        if self._plain:
            prompts = [self._prompts[t] for t in texts]
            responses = [self._responses[t] for t in texts]
            open_ = self._composition.gated(None)
            return _plainly(self._model, open_, settings, prompts, responses, done)
        ids, lengths = self._batch.ids, self._batch.prompt_lengths
        return branched_logprobs(
            self._model.architecture,
            self._composition,
            settings,
            Batch(tuple(ids[t] for t in texts), tuple(lengths[t] for t in texts)),
            max_tokens=self._max_tokens or fastest_tokens(self._model.architecture),
            done=done,
        )


def plain_reason(model: Model, composition: Composition, longest: int) -> str:
    """Return why settings run through the whole model one by one; empty if they need not.

    Args:
        model: The model.
        composition: What is injected.
        longest: Longest text, in tokens.
    """
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


def _different(settings: Tensor, pattern: _Pattern) -> tuple[Tensor, Tensor]:
    """Return what a prompt of some gate pattern sees of settings, each once, and which is which."""
    effective = settings * torch.tensor(pattern) + 0.0  # no −0.0 beside 0.0
    different, which = torch.unique(effective, dim=0, return_inverse=True)
    return different, which


def _patterns(model: Model, composition: Composition, batch: Batch) -> dict[_Pattern, list[int]]:
    """Return the rows of a batch by what the gate makes of their prompts."""
    gate = composition.gate
    if gate is None:
        return {(1.0,) * len(composition.domains): list(range(len(batch.ids)))}
    asked = [ids[:n] for ids, n in zip(batch.ids, batch.prompt_lengths, strict=True)]
    prompts = tuple(dict.fromkeys(asked))
    weights: dict[tuple[int, ...], _Pattern] = {}
    for piece in Batch(prompts, tuple(map(len, prompts))).pieces(4096):
        streams = model.engine.forward(piece, layers=[gate.layer], logits="none").residual
        x = torch.stack([stream[0, -1] for stream in streams])
        opened = gate(x)[:, gate.columns(composition.domains)].tolist()
        weights |= {ids: tuple(row) for ids, row in zip(piece.ids, opened, strict=True)}
    found: dict[_Pattern, list[int]] = {}
    for row, prompt in enumerate(asked):
        found.setdefault(weights[prompt], []).append(row)
    return found


def _plainly(
    model: Model,
    composition: Composition,
    settings: Tensor,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    done: Done,
) -> list[Tensor]:
    n = len(prompts)
    scored: list[list[Tensor]] = [[] for _ in prompts]
    for part in settings.split(max(1, _PLAIN_ROWS // max(1, n))):
        for k, row in enumerate(_rows(model, composition, part, prompts, responses)):
            scored[k % n].append(row)
        done(len(part) * n)
    return [torch.stack(rows) for rows in scored]


def _rows(
    model: Model,
    composition: Composition,
    settings: Tensor,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
) -> list[Tensor]:
    """Return the log-probabilities of every response under one setting after the other."""
    asked, given = list(prompts) * len(settings), list(responses) * len(settings)
    steered = model.steered(composition, settings.repeat_interleave(len(prompts), dim=0))
    try:
        steered.attach()
    except CapabilityError:  # weights that are merged have one setting at a time
        found: list[Tensor] = []
        for setting in settings:
            with model.steered(composition, setting):
                found += model.logprobs(prompts, responses)
        return found
    try:
        return model.logprobs(asked, given)
    finally:
        steered.remove()
