"""Measuring settings of one or several compositions together: scores of answers, side effects.

Settings of residual compositions without a gate become rows of one joined composition, so that the
unsteered part of the model runs once for all of them; others are measured one composition after
the other. All come from one kernel, so that equal settings have equal scores: the unsteered model
is a composition at 0.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steer.algebra import Composition, Residual
from steer.engine import unsteered
from steer.engine._branches.branches import branched_divergences
from steer.engine._branches.trial import fastest_tokens
from steer.errors import CapabilityError
from steer.measure import NeutralText, Preference, Scorer
from steer.measure._kl import divergence, exp
from steer.measure._likelihood import Done, plain_reason
from steer.measure._reduce import Reduce, check_reduce, reduced
from steer.measure._scores import preferences
from steer.model import Model, check_model, exchange_batch
from steer.pairs import Pair, Pairs, Prompt

Row = tuple[float, ...]
Setting = tuple[Composition, Row]  # what is steered with, and its coefficients
_BYTES = 256 * 2**20  # of logits at once
_ROWS = 64  # answers generated at once


def at(composition: Composition) -> Setting:
    """Return a composition at its own coefficients as a setting."""
    return composition, tuple(composition.coefficients[0].tolist())


class PairScores:
    """Scores the answers of pairs under settings."""

    def __init__(self, model: Model, reduce: Reduce) -> None:
        check_model(model)
        unsteered(model.engine, "measuring preferences")
        check_reduce(reduce)
        self._model, self._reduce = model, reduce
        self._gated: dict[object, Scorer] = {}

    def __call__(
        self,
        settings: Sequence[Setting],
        pairs: Sequence[Pair],
        *,
        finite: bool = False,
        done: Done = lambda n: None,
    ) -> Float[Tensor, "setting side pair"]:
        """Return the scores of chosen and rejected answers under each setting, in nats."""
        found = torch.empty(len(settings), 2 * len(pairs))
        for composition, rows, places in _groups(settings) if pairs else ():
            logprobs = self._scorer(composition, pairs)(rows, done).logprobs
            found[places] = reduced(logprobs, self._reduce, finite=finite).to(found)
        return found.unflatten(1, (2, -1)) if pairs else found.reshape(len(settings), 2, 0)

    def _scorer(self, composition: Composition, pairs: Sequence[Pair]) -> Scorer:
        """Return what scores pairs; behind a gate what was scored already is known to it."""
        key = (id(composition), tuple(pairs))
        if key in self._gated:
            return self._gated[key]
        prompts = [pair.prompt for pair in pairs] * 2
        answers = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
        scorer = Scorer(self._model, composition, prompts, answers)
        if composition.gate is not None:
            self._gated = {key: scorer}
        return scorer


def preferences_at(
    model: Model, compositions: Sequence[Composition], data: Mapping[str, Pairs], reduce: Reduce
) -> list[dict[str, Preference]]:
    """Return the preference by domain under some compositions, each at its own coefficients."""
    found: list[dict[str, Preference]] = [{} for _ in compositions]
    for composition, rows, places in _groups([at(c) for c in compositions]):
        for k, one in zip(places, preferences(model, composition, rows, data, reduce), strict=True):
            found[k] = one
    return found


def counted(bar: Any, each: int) -> Done:
    """Return what counts (answer, setting) in a bar of whole settings of so many answers each."""
    seen = 0

    def done(n: int) -> None:
        nonlocal seen
        seen += n
        bar.update(seen // each - bar.n)

    return done


def answers_at(
    model: Model, settings: Sequence[Setting], prompts: Sequence[Prompt], tokens: int
) -> list[list[str]]:
    """Return greedy answers under each setting, in one batch where settings can be joined."""
    found: list[list[str]] = [[] for _ in settings]
    options: dict[str, Any] = {"max_new_tokens": tokens, "batch_size": _ROWS}
    for composition, rows, places in _groups(settings):
        if _plain(composition):
            each = rows.repeat_interleave(len(prompts), dim=0)
            with model.steered(composition, each):
                texts = model.generate([*prompts] * len(rows), **options)
            for n, k in enumerate(places):
                found[k] = texts[n * len(prompts) : (n + 1) * len(prompts)]
        else:
            for row, k in zip(rows, places, strict=True):
                with model.steered(composition, row):
                    found[k] = model.generate([*prompts], **options)
    return found


class SideEffects:
    """Measures settings on neutral text."""

    def __init__(self, model: Model, text: NeutralText) -> None:
        unsteered(model.engine, "measuring side effects")
        self._model, self._text = model, text
        self._batch = exchange_batch(model.chat, text.prompts, text.responses)
        self._before = [torch.log_softmax(row.float(), dim=-1) for row in text.logits]
        whole = zip(self._batch.ids, self._batch.prompt_lengths, strict=True)
        self._tokens = [torch.tensor(ids[start:]) for ids, start in whole]
        self._base = self._nats(self._before)

    def __call__(self, settings: Sequence[Setting]) -> list[tuple[float, float]]:
        """Return KL(steered‖unsteered) and the factor of the perplexity at each setting.

        KL is Σ_v p_s (log p_s − log p_u), the mean over response tokens, in nats; the factor is
        exp of the steered minus the unsteered mean −log p(token). Either is NaN or infinite where
        the logits make it so.
        """
        found = [(math.nan, math.nan)] * len(settings)
        for composition, rows, places in _groups(settings):
            for k, kl, nats in zip(places, *self._measured(composition, rows), strict=True):
                found[k] = (0.0 if kl < 0 else kl, exp(nats - self._base))  # NaN stays NaN
        return found

    def _measured(self, composition: Composition, rows: Tensor) -> tuple[list[float], list[float]]:
        """Return KL and −log p of each setting, nats per token."""
        longest = max(map(len, self._batch.ids))
        if composition.gate is None and not plain_reason(self._model, composition, longest):
            architecture = self._model.architecture
            read = branched_divergences(
                architecture,
                composition,
                rows,
                self._batch,
                self._before,
                max_tokens=fastest_tokens(architecture),
            )
            both = torch.cat(read, dim=1).double().sum(dim=1) / self._text.tokens
            return both[:, 1].tolist(), (-both[:, 0]).tolist()
        kls, nats = [], []
        for logits in self._logits(composition, rows):
            after = [torch.log_softmax(row.float(), dim=-1) for row in logits]
            kls.append(sum(map(divergence, after, self._before)) / self._text.tokens)
            nats.append(self._nats(after))
        return kls, nats

    def _nats(self, tables: Sequence[Float[Tensor, "pos vocab"]]) -> float:
        scores = [
            table.gather(1, tokens[:, None].to(table.device)).double().sum()
            for table, tokens in zip(tables, self._tokens, strict=True)
        ]
        return -float(torch.stack([score.cpu() for score in scores]).sum()) / self._text.tokens

    def _logits(self, composition: Composition, settings: Tensor) -> Iterator[list[Tensor]]:
        """Yield the logits of every text, setting by setting, through the whole model."""
        texts = len(self._text.prompts)
        each = sum(row.numel() * 4 for row in self._text.logits)
        for part in settings.split(max(1, _BYTES // each)):
            rows = part.repeat_interleave(texts, dim=0)
            steered = self._model.steered(composition, rows)
            try:
                steered.attach()
            except CapabilityError:  # weights that are merged have one setting at a time
                yield from (self._alone(composition, setting) for setting in part)
                continue
            try:
                asked = list(self._text.prompts) * len(part)
                found = self._model.logits(asked, list(self._text.responses) * len(part))
            finally:
                steered.remove()
            yield from (found[k : k + texts] for k in range(0, len(found), texts))

    def _alone(self, composition: Composition, setting: Tensor) -> list[Tensor]:
        with self._model.steered(composition, setting):
            return self._model.logits(self._text.prompts, self._text.responses)


def _groups(
    settings: Sequence[Setting],
) -> Iterator[tuple[Composition, Float[Tensor, "setting domain"], list[int]]]:
    """Yield compositions with rows of coefficients, and which settings these are."""
    members: dict[int, list[int]] = {}
    for k, (composition, _) in enumerate(settings):
        members.setdefault(id(composition), []).append(k)
    plain = [ks for ks in members.values() if _plain(settings[ks[0]][0])]
    if len(plain) > 1:
        blocks = [torch.tensor([settings[k][1] for k in ks], dtype=torch.float64) for ks in plain]
        parts = {
            f"{n}.{name}": part
            for n, ks in enumerate(plain)
            for name, part in settings[ks[0]][0].parts.items()
        }
        rows = torch.block_diag(*blocks)
        yield Composition(parts, rows, per_row=True), rows, [k for ks in plain for k in ks]
    for ks in members.values():
        if len(plain) < 2 or ks not in plain:
            rows = torch.tensor([settings[k][1] for k in ks], dtype=torch.float64)
            yield settings[ks[0]][0], rows, ks


def _plain(composition: Composition) -> bool:
    residual = all(isinstance(site, Residual) for site in composition.sites)
    return residual and composition.gate is None
