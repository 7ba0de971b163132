"""KL and perplexity on neutral text under many settings at once: settings are rows of a batch."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steer.composition import Composition
from steer.engine.base import unsteered
from steer.errors import CapabilityError
from steer.evaluate.kl import NeutralText, divergence, exp
from steer.model import Model
from steer.text import encode_exchange

_BYTES = 256 * 2**20  # of logits at once


class SideEffects:
    """Measures settings on neutral text.

    Args:
        model: The model; it must not be steered.
        text: Continuations of the same model, unsteered.

    Raises:
        SteeringError: The model is being steered.
    """

    def __init__(self, model: Model, text: NeutralText) -> None:
        unsteered(model.engine, "measuring side effects")
        self._model, self._text = model, text
        self._before = [torch.log_softmax(row.float(), dim=-1) for row in text.logits]
        self._tokens = [
            torch.tensor(e.ids[e.response_start :])
            for e in (
                encode_exchange(model.chat, p, r)
                for p, r in zip(text.prompts, text.responses, strict=True)
            )
        ]
        self._base = self._nats(self._before)

    def __call__(
        self, composition: Composition, settings: Float[Tensor, "setting domain"]
    ) -> list[tuple[float, float]]:
        """Return KL(steered‖unsteered) and the factor of the perplexity at each setting.

        KL is Σ_v p_s (log p_s − log p_u), the mean over response tokens, in nats; the factor is
        exp of the steered minus the unsteered mean −log p(token). Either is NaN or infinite where
        the logits make it so.

        Args:
            composition: Vectors, operators, scopes and gate; its own coefficients are not used.
            settings: Coefficients, dimensionless.
        """
        found = []
        for logits in self._logits(composition, settings):
            after = [torch.log_softmax(row.float(), dim=-1) for row in logits]
            kl = sum(map(divergence, after, self._before)) / self._text.tokens
            factor = exp(self._nats(after) - self._base)
            found.append((0.0 if kl < 0 else kl, factor))  # below 0 by rounding; NaN stays NaN
        return found

    def _nats(self, tables: Sequence[Float[Tensor, "pos vocab"]]) -> float:
        scores = [
            table.gather(1, tokens[:, None].to(table.device)).double().sum()
            for table, tokens in zip(tables, self._tokens, strict=True)
        ]
        return -float(torch.stack([score.cpu() for score in scores]).sum()) / self._text.tokens

    def _logits(self, composition: Composition, settings: Tensor) -> Iterator[list[Tensor]]:
        """Yield the logits of every text, setting by setting."""
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
