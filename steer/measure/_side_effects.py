"""What settings do to neutral text: KL and perplexity of many settings together."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from steer.algebra import Composition
from steer.engine._branches.branches import branched_scores
from steer.engine._branches.trial import fastest_tokens
from steer.measure._kl import NeutralText, divergence, exp
from steer.measure._likelihood import plain_reason, through
from steer.measure._scores import Knob, joined
from steer.model import Model, check_model, exchange_batch

_BYTES = 256 * 2**20  # of logits at once


class SideEffect(NamedTuple):
    """KL in nats per response token, its standard error over texts, and perplexity as a factor."""

    kl: float
    error: float
    perplexity: float

    @property
    def upper(self) -> float:
        """One standard error above the KL; the KL itself where one text leaves no error."""
        return self.kl if math.isnan(self.error) else self.kl + self.error


class SideEffects:
    """Measures settings on neutral text."""

    def __init__(self, model: Model, text: NeutralText) -> None:
        check_model(model, "measuring side effects")
        self._model, self._text = model, text
        self._batch = exchange_batch(model.chat, text.prompts, text.responses)
        self._before = [torch.log_softmax(row.float(), dim=-1) for row in text.logits]
        whole = zip(self._batch.ids, self._batch.prompt_lengths, strict=True)
        self._tokens = [torch.tensor(ids[start:]) for ids, start in whole]
        self._lengths = torch.tensor([len(row) for row in text.logits], dtype=torch.float64)
        self._base = self._logprobs(self._before)

    def __call__(self, knobs: Sequence[Knob]) -> list[SideEffect]:
        """Return the side effect of each setting; NaN or infinite where the logits make it so.

        KL is Σ_v p_s (log p_s − log p_u), the mean over response tokens; the factor is exp of the
        steered minus the unsteered mean −log p(token).
        """
        found = [SideEffect(math.nan, math.nan, math.nan)] * len(knobs)
        for composition, rows, places in joined(knobs):
            for k, table in zip(places, self._measured(composition, rows), strict=True):
                found[k] = self._of(*table)
        return found

    def _of(
        self, logprobs: Float[Tensor, " text"], divergences: Float[Tensor, " text"]
    ) -> SideEffect:
        """Return the numbers of one setting from sums over the tokens of each text."""
        tokens, n = float(self._lengths.sum()), len(self._lengths)
        kl = float(divergences.sum()) / tokens
        spread = float((divergences - kl * self._lengths).square().sum())
        error = math.sqrt(spread * n / (n - 1)) / tokens if n > 1 else math.nan
        factor = exp(float((self._base - logprobs).sum()) / tokens)
        return SideEffect(0.0 if kl < 0 else kl, error, factor)  # NaN stays NaN

    def _measured(
        self, composition: Composition, rows: Float[Tensor, "setting domain"]
    ) -> Iterator[tuple[Float[Tensor, " text"], Float[Tensor, " text"]]]:
        """Yield log p and KL of each text at each setting, summed over its tokens."""
        longest = max(map(len, self._batch.ids))
        if composition.gate is None and not plain_reason(self._model, composition, longest):
            architecture = self._model.architecture
            most = fastest_tokens(architecture)
            read = branched_scores(
                architecture, composition, rows, self._batch, self._before, max_tokens=most
            )
            both = torch.stack([text.double().sum(dim=1) for text in read], dim=1)
            yield from ((one[:, 0], one[:, 1]) for one in both)
            return
        prompts, responses = list(self._text.prompts), list(self._text.responses)
        for logits in through(
            self._model,
            composition,
            rows,
            len(prompts),
            _BYTES // max(row.numel() * 4 for row in self._text.logits),
            lambda n: self._model.logits(prompts * n, responses * n),
        ):
            after = [torch.log_softmax(row.float(), dim=-1) for row in logits]
            kl = [divergence(*both) for both in zip(after, self._before, strict=True)]
            yield self._logprobs(after), torch.tensor(kl, dtype=torch.float64)

    def _logprobs(self, tables: Sequence[Float[Tensor, "pos vocab"]]) -> Float[Tensor, " text"]:
        scores = [
            table.gather(1, tokens[:, None].to(table.device)).double().sum().cpu()
            for table, tokens in zip(tables, self._tokens, strict=True)
        ]
        return torch.stack(scores)
