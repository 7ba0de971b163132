"""The parts of a causal language model that steering needs, as one frozen value."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from steer.network._architecture.head import LogitRule
from steer.network._architecture.tree import classes
from steer.show import Card, Shown, Table

_ORDER = ("body", "embedding", "blocks", "final_norm", "projection", "unembedding")
_RULES = 8  # of the logits, at most so many in a card


def _in_dtype_of(module: nn.Module, x: Tensor) -> Tensor:
    """Return a float32 stream in the dtype of the module that reads it."""
    weight = next(module.parameters(), x)
    return x.to(weight.dtype) if weight.is_floating_point() else x


def in_order(names: Mapping[str, str]) -> dict[str, str]:
    """Return the names of parts in the order in which a forward runs them."""
    return {part: names[part] for part in _ORDER if part in names}


@dataclass(frozen=True, eq=False, repr=False)
class Architecture(Shown):
    """The parts of a causal language model; nothing is copied.

    Args:
        model: The causal language model, as it was given.
        body: The text model without the unembedding, called as ``body(input_ids=…)``.
        blocks: The decoder blocks in the order in which they run.
        embedding: The token embedding.
        final_norm: The norm after the last block; an `nn.Identity` in models without one.
        unembedding: The linear map from the residual stream to the vocabulary.
        projection: The module between final norm and unembedding, in the few models with one.
        logit_rules: Scales and soft caps that the model applies to its logits.
        names: The dotted name of each part in `model`, such as ``"blocks": "model.layers"``.
        n_layers: Number of decoder blocks.
        d_model: Width of the residual stream.
        vocab: Number of logits.
    """

    model: nn.Module
    body: nn.Module
    blocks: tuple[nn.Module, ...]
    embedding: nn.Module
    final_norm: nn.Module
    unembedding: nn.Module
    projection: nn.Module | None
    logit_rules: tuple[LogitRule, ...]
    names: Mapping[str, str]
    n_layers: int
    d_model: int
    vocab: int

    def unembed(self, h: Float[Tensor, "*pos d_model"]) -> Float[Tensor, "*pos vocab"]:
        """Return the model's logits for an output of its last block.

        ``logits = rules(W_U · projection(norm(h)))``

        Args:
            h: A residual stream `[*pos, d_model]` in the model's dtype and on its device.

        Returns:
            Logits `[*pos, vocab]`, equal to the model's own.
        """
        x = self.final_norm(h)
        if self.projection is not None:
            x = self.projection(x)
        logits = self.unembedding(_in_dtype_of(self.unembedding, x))
        for rule in self.logit_rules:
            logits = rule(logits)
        return cast(Tensor, logits)

    def _card(self) -> Card:
        kinds = {"blocks": f"{self.n_layers} × {classes(self.blocks)}"}
        rows = [
            (part, name or ".", kinds.get(part) or type(getattr(self, part)).__name__)
            for part, name in self.names.items()
        ]
        rows += [("logits", str(rule), "") for rule in self.logit_rules[:_RULES]]
        size = f"{self.n_layers} layers × {self.d_model}, vocabulary {self.vocab:,}"
        title = f"{type(self.model).__name__}: {size}"
        return Card(title, (), (Table(("part", "at", "what"), tuple(rows), words=3),))
