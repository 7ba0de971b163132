"""The interface of engines: they run a model, capture, inject and generate."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steer.algebra import Composition
from steer.errors import CapabilityError, SteerError, SteeringError
from steer.network import Architecture

Capability = Literal["in_place", "weights", "scopes", "markers", "rows", "gate"]
WeightMode = Literal["auto", "hook", "merge"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Token sequences to run together, each a prompt followed by given response tokens.

    Args:
        ids: Token ids of each row, without padding.
        prompt_lengths: How many of each row's tokens are the prompt.
        rows: The coefficient row of each sequence, if they are a part of a larger call.
        total: Number of sequences of that larger call.
    """

    ids: tuple[tuple[int, ...], ...]
    prompt_lengths: tuple[int, ...]
    rows: tuple[int, ...] | None = None
    total: int | None = None

    def pieces(self, max_tokens: int) -> "Iterator[Batch]":
        """Yield parts of at most `max_tokens` padded tokens (one row at least), longest first.

        Args:
            max_tokens: Tokens of one part, padding included.
        """
        order = sorted(range(len(self.ids)), key=lambda r: -len(self.ids[r]))
        while order:
            size = max(1, max_tokens // max(1, len(self.ids[order[0]])))
            piece, order = order[:size], order[size:]
            yield self._take(piece)

    def parts(self, size: int) -> "Iterator[Batch]":
        """Yield parts of at most `size` rows, longest first.

        Args:
            size: Rows of one part, at least 1.
        """
        order = sorted(range(len(self.ids)), key=lambda r: -len(self.ids[r]))
        for start in range(0, len(order), max(1, size)):
            yield self._take(order[start : start + max(1, size)])

    def wanted(self, row: int, logits: Literal["response", "all", "none"]) -> slice:
        """Return the positions of a row whose logits are wanted.

        Args:
            row: Index of the row.
            logits: At the positions that predict response tokens, at every position, or nowhere.
        """
        if logits == "response":
            return slice(self.prompt_lengths[row] - 1, len(self.ids[row]) - 1)
        return slice(0, len(self.ids[row]) if logits == "all" else 0)

    def responses(self) -> "tuple[tuple[int, ...], ...]":
        """Return the response tokens of each row."""
        rows = zip(self.ids, self.prompt_lengths, strict=True)
        return tuple(ids[prompt:] for ids, prompt in rows)

    def _take(self, rows: Sequence[int]) -> "Batch":
        return Batch(
            tuple(self.ids[r] for r in rows),
            tuple(self.prompt_lengths[r] for r in rows),
            tuple(rows),
            len(self.ids),
        )

    def padded(
        self, side: Literal["left", "right"], device: torch.device, fill: int = 0
    ) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
        """Return ids and mask as rectangles.

        Args:
            side: Where padding goes.
            device: Where the tensors are wanted.
            fill: The id put into padding; any valid one does.

        Returns:
            Ids, and True at tokens.
        """
        width = max(len(row) for row in self.ids)
        ids = torch.full((len(self.ids), width), fill, dtype=torch.long)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        for r, row in enumerate(self.ids):
            at = slice(width - len(row), width) if side == "left" else slice(0, len(row))
            ids[r, at] = torch.tensor(row, dtype=torch.long)
            mask[r, at] = True
        return ids.to(device), mask.to(device)

    def unpadded(
        self,
        streams: Mapping[int, Float[Tensor, "batch pos d_model"]],
        layers: Sequence[int],
        device: torch.device | None = None,
    ) -> tuple[Float[Tensor, "layer pos d_model"], ...]:
        """Return streams by layer, padded on the right, as one stack of layers per row.

        Args:
            streams: The residual stream at each layer.
            layers: Layers of the result, in order; nothing is returned without any.
            device: Where the result is wanted.
        """
        return tuple(
            torch.stack([streams[layer][r, : len(ids)].to(device=device) for layer in layers])
            for r, ids in enumerate(self.ids if layers else ())
        )


@dataclass(frozen=True, eq=False, slots=True)
class Forward:
    """The results of one forward of a batch, row by row and without padding.

    Args:
        logits: For each row `[pos vocab]`: at the positions that predict its response, or at all.
        residual: For each row `[layer pos d_model]` at the layers asked for, in residual units.
    """

    logits: tuple[Float[Tensor, "pos vocab"], ...]
    residual: tuple[Float[Tensor, "layer pos d_model"], ...]


class Attachment(Protocol):
    """A composition that is being injected until it is removed.

    Args:
        composition: The composition, with its current coefficients.
        weights: How its weight sites are steered.
        active: Whether it has not been removed.
    """

    @property
    def composition(self) -> Composition: ...

    @property
    def weights(self) -> WeightMode: ...

    @property
    def active(self) -> bool: ...

    def update(self, composition: Composition) -> None:
        """Take other coefficients of the same vectors."""

    def remove(self) -> None:
        """Stop injecting; a second call does nothing."""


class Engine(ABC):
    """Runs one model.

    An engine that injects at the modules themselves, so that the user's own calls of the model
    are steered too, declares the capability `in_place`.
    """

    name: str
    capabilities: frozenset[Capability]
    architecture: Architecture

    @property
    @abstractmethod
    def attachments(self) -> tuple[Attachment, ...]:
        """The compositions that are being injected into the model, in the order of entry."""

    @property
    def steering(self) -> bool:
        """Whether a composition is being injected."""
        return bool(self.attachments)

    @abstractmethod
    def attach(
        self, composition: Composition, *, weights: WeightMode = "auto", tokenizer: Any = None
    ) -> Attachment:
        """Inject a composition into every call until the attachment is removed.

        Args:
            composition: What to inject.
            weights: How weight sites are steered: `hook`, `merge`, or whichever is exact (`auto`).
            tokenizer: The model's tokenizer, if it has one; scopes with a marker need it.

        Raises:
            CapabilityError: The engine cannot do this.
            CompositionError: A scope has a marker, and there is no tokenizer that can write it.
            BusyModelError: Another thread is steering this model.
        """

    @abstractmethod
    def forward(
        self,
        batch: Batch,
        *,
        layers: Sequence[int] = (),
        logits: Literal["response", "all", "none"] = "response",
    ) -> Forward:
        """Run a batch once.

        Args:
            batch: The rows.
            layers: Layers whose output is wanted; -1 is the embedding output.
            logits: Where logits are wanted: at the positions that predict response tokens,
                at every position, or nowhere.

        Returns:
            Logits and residual streams, without padding.

        Raises:
            CapabilityError: The model is in training mode.
            BusyModelError: Another thread's call of the model is under way.
        """

    def one_by_one(self, **options: object) -> bool:
        """Return whether prompts must be generated one by one, as far as the engine can tell.

        Args:
            **options: Options of `generate`.

        Raises:
            CapabilityError: Several rows for a prompt are asked for, and rows change each other; or
                the model is in training mode.
            BusyModelError: Another thread's call of the model is under way.
        """
        return False

    @abstractmethod
    def generate(self, batch: Batch, **options: object) -> list[list[int]]:
        """Generate from a batch of prompts.

        Args:
            batch: The prompts.
            **options: Generation options, named as in Hugging Face's `generate`.

        Returns:
            The new token ids of each row, up to and without the end-of-sequence token; several
            consecutive rows per prompt where copies were asked for.

        Raises:
            CapabilityError: The model is in training mode, or the engine does not take an option.
        """


def check_evaluating(architecture: Architecture, error: type[SteerError] = CapabilityError) -> None:
    """Refuse a model in training mode."""
    if any(module.training for module in (architecture.body, *architecture.blocks)):
        raise error(
            "the model is in training mode",
            found="training = True",
            expected="evaluation mode: dropout would change the output of every call",
            do="call model.hf_model.eval() first; calls of hf_model itself are left to you",
        )


def in_place(engine: Engine, doing: str) -> None:
    """Refuse an operation on a model's modules for an engine that does not inject there."""
    if "in_place" not in engine.capabilities:
        raise CapabilityError(
            f"{doing} works on the modules of a model in this process",
            found=f"the engine {engine.name}",
            expected="an engine that injects in place",
            do="use steer.Model on the model itself, or model.activations(...) for single texts",
        )


def unsteered(engine: Engine, doing: str) -> None:
    """Refuse an operation on the unsteered model while it is steered.

    Args:
        engine: The engine.
        doing: The operation, for the message.

    Raises:
        SteeringError: The engine is injecting a composition.
    """
    if engine.steering:
        raise SteeringError(
            "the model is being steered",
            found=f"{doing} inside steered()",
            expected="the unsteered model, the reference of this operation",
            do="leave the context, or call unsteer() of the model, whose `steering` lists what is "
            "active; and pass what to steer with",
        )
