"""The interface of engines: they run a model, capture, inject and generate."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from steer.algebra import Composition
from steer.errors import BusyModelError, CapabilityError, SteerError, SteeringError
from steer.network import Architecture

Capability = Literal["in_place", "weights", "scopes", "markers", "rows", "gate"]
WeightMode = Literal["auto", "hook", "merge"]
Logits = Literal["response", "all", "none"]  # at tokens that predict the response, all, or none


@dataclass(frozen=True, slots=True)
class Batch:
    """Token sequences to run together, each a prompt followed by given response tokens."""

    ids: tuple[tuple[int, ...], ...]  # of each row, without padding
    prompt_lengths: tuple[int, ...]  # how many of each row's tokens are the prompt
    rows: tuple[int, ...] | None = None  # which rows of a larger call, if they are a part of one
    total: int | None = None  # rows of that larger call

    def pieces(self, max_tokens: int) -> "Iterator[Batch]":
        """Yield parts of at most `max_tokens` padded tokens (one row at least), longest first."""
        yield from self._cut(lambda longest: max_tokens // max(1, longest))

    def parts(self, size: int) -> "Iterator[Batch]":
        """Yield parts of at most `size` rows, longest first."""
        yield from self._cut(lambda longest: size)

    def _cut(self, size_of: Callable[[int], int]) -> "Iterator[Batch]":
        ids, lengths = self.ids, self.prompt_lengths
        order = sorted(range(len(ids)), key=lambda r: -len(ids[r]))
        while order:
            size = max(1, size_of(len(ids[order[0]])))
            rows, order = tuple(order[:size]), order[size:]
            own = tuple(ids[r] for r in rows), tuple(lengths[r] for r in rows)
            yield Batch(*own, rows, len(ids))

    def wanted(self, row: int, logits: Logits) -> slice:
        """Return the positions of a row whose logits are wanted."""
        if logits == "response":
            return slice(self.prompt_lengths[row] - 1, len(self.ids[row]) - 1)
        return slice(0, len(self.ids[row]) if logits == "all" else 0)

    def responses(self) -> "tuple[tuple[int, ...], ...]":
        """Return the response tokens of each row."""
        rows = zip(self.ids, self.prompt_lengths, strict=True)
        return tuple(ids[prompt:] for ids, prompt in rows)

    def padded(
        self, side: Literal["left", "right"], device: torch.device, fill: int = 0
    ) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
        """Return ids and mask as rectangles; any valid id fills them."""
        rows = [torch.tensor(row, dtype=torch.long) for row in self.ids]
        ids = pad_sequence(rows, True, fill, side)
        mask = pad_sequence([torch.ones_like(row) for row in rows], True, 0, side).bool()
        return ids.to(device), mask.to(device)

    def unpadded(
        self,
        streams: Mapping[int, Float[Tensor, "batch pos d_model"]],
        layers: Sequence[int],
        device: torch.device | None = None,
    ) -> tuple[Float[Tensor, "layer pos d_model"], ...]:
        """Return streams by layer, padded on the right, as one stack of layers per row."""
        return tuple(
            torch.stack([streams[layer][r, : len(ids)].to(device=device) for layer in layers])
            for r, ids in enumerate(self.ids if layers else ())
        )


@dataclass(frozen=True, eq=False, slots=True)
class Forward:
    """The results of one forward of a batch, row by row and without padding."""

    # at the positions that predict a row's response, or at all
    logits: tuple[Float[Tensor, "pos vocab"], ...]
    # at the layers asked for, in residual units
    residual: tuple[Float[Tensor, "layer pos d_model"], ...]


class Attachment(Protocol):
    """A composition that is being injected until it is removed."""

    @property
    def composition(self) -> Composition:
        """The composition, with its current coefficients."""

    @property
    def weights(self) -> WeightMode:
        """How its weight sites are steered."""

    @property
    def active(self) -> bool:
        """Whether it has not been removed."""

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
        logits: Logits = "response",
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
    """Refuse an operation on the unsteered model while it is steered."""
    if engine.steering:
        raise SteeringError(
            "the model is being steered",
            found=f"{doing} inside steered()",
            expected="the unsteered model, the reference of this operation",
            do="leave the context, or call unsteer() of the model, whose `steering` lists what is "
            "active; and pass what to steer with",
        )


def busy(how: str, thread: int | None, expected: str = "one thread per model") -> BusyModelError:
    """Return the error of a second thread."""
    return BusyModelError(
        f"this model is being {how} by another thread",
        found=f"thread {thread}",
        expected=expected,
        do="use one copy of the model per thread, or a coefficient row per prompt",
    )
