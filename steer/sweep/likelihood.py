"""How likely given answers are under many settings of the knobs at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steer.composition import CoefficientsLike, Composition, coefficient_rows
from steer.engine.base import Batch
from steer.engine.branches.branches import branched_logprobs
from steer.engine.branches.trial import fastest_tokens, uncut_reason
from steer.engine.hooks import HooksEngine
from steer.engine.injector import injector_of
from steer.engine.reading import keep_freed_memory
from steer.errors import CapabilityError, TextError
from steer.model import Model
from steer.pairs import Prompt
from steer.site import Weight
from steer.text import encode_exchange

_PLAIN_ROWS = 512  # rows scored at once where each setting runs through the whole model
Done = Callable[[int], object]


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
    rows, _ = coefficient_rows(settings, composition.domains)
    model.steered(composition, rows)  # refuses what does not fit; nothing is attached
    if len(prompts) != len(responses):
        raise TextError(
            "prompts and responses differ in number",
            found=f"{len(prompts)} prompts, {len(responses)} responses",
            expected="one prompt per response",
            do="repeat a prompt for each of its responses",
        )
    encoded = [
        encode_exchange(model.tokenizer, p, r) for p, r in zip(prompts, responses, strict=True)
    ]
    batch = Batch(tuple(e.ids for e in encoded), tuple(e.response_start for e in encoded))
    reason = plain_reason(model, composition, max((len(ids) for ids in batch.ids), default=1))
    if reason:
        found = _plainly(model, composition, rows, prompts, responses, done)
        return Likelihoods(tuple(found), f"plain: {reason}")
    keep_freed_memory()
    tokens = max_tokens or fastest_tokens(model.architecture)
    return Likelihoods(tuple(_branched(model, composition, rows, batch, tokens, done)), "branched")


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
    if composition.gate is not None and composition.gate.layer < 0:
        return "the gate reads the embedding"
    if injector_of(model.architecture).stack:
        return "the model is steered already"
    return uncut_reason(model.architecture, longest)


def _branched(
    model: Model, composition: Composition, settings: Tensor, batch: Batch, tokens: int, done: Done
) -> list[Tensor]:
    """Score the rows that one gate pattern is shared by, and each different setting once."""
    found: list[Tensor] = [torch.empty(0)] * len(batch.ids)
    for pattern, rows in _patterns(model, composition, batch).items():
        own = Batch(tuple(batch.ids[r] for r in rows), tuple(batch.prompt_lengths[r] for r in rows))
        effective = settings * torch.tensor(pattern)
        different, which = torch.unique(effective, dim=0, return_inverse=True)
        share = len(settings) / len(different)
        scored = branched_logprobs(
            model.architecture,
            composition,
            different,
            own,
            max_tokens=tokens,
            done=lambda n, share=share: done(round(n * share)),  # type: ignore[misc]
        )
        for row, scores in zip(rows, scored, strict=True):
            found[row] = scores[which]
    return found


def _patterns(
    model: Model, composition: Composition, batch: Batch
) -> dict[tuple[float, ...], list[int]]:
    """Return the rows of a batch by what the gate makes of their prompts."""
    gate = composition.gate
    if gate is None:
        return {(1.0,) * len(composition.domains): list(range(len(batch.ids)))}
    asked = [ids[:n] for ids, n in zip(batch.ids, batch.prompt_lengths, strict=True)]
    prompts = tuple(dict.fromkeys(asked))
    weights: dict[tuple[int, ...], tuple[float, ...]] = {}
    for piece in Batch(prompts, tuple(map(len, prompts))).pieces(4096):
        streams = model.engine.forward(piece, layers=[gate.layer], logits="none").residual
        x = torch.stack([stream[0, -1] for stream in streams])
        opened = gate(x)[:, gate.columns(composition.domains)].tolist()
        weights |= {ids: tuple(row) for ids, row in zip(piece.ids, opened, strict=True)}
    found: dict[tuple[float, ...], list[int]] = {}
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
