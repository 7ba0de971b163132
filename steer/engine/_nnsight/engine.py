"""The engine that runs a model in nnsight traces, on this machine or on a server."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from steer.algebra import Composition
from steer.engine._base import (
    Batch,
    Capability,
    Engine,
    Forward,
    Logits,
    WeightMode,
    busy,
    check_evaluating,
)
from steer.engine._nnsight.body import Edit
from steer.engine._nnsight.program import Setting, edits_of, refuse, setting_of
from steer.engine._nnsight.traces import run, run_generation
from steer.engine._options import answers_of, end_tokens, setting, with_padding
from steer.engine._steps import placed
from steer.engine._together import one_by_one
from steer.errors import CapabilityError
from steer.network import Architecture

_ONE_BY_ONE = (  # of `generate`: several tokens in a forward, or a second text beside the prompt
    "assistant_model",
    "assistant_early_exit",
    "custom_generate",
    "guidance_scale",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
)


@dataclass(eq=False)
class TraceAttachment:
    """A composition that the engine's own traces inject until it is removed."""

    composition: Composition
    _stack: "list[TraceAttachment]"
    weights: WeightMode = "auto"

    @property
    def active(self) -> bool:
        """Whether it has not been removed."""
        return self in self._stack

    def update(self, composition: Composition) -> None:
        """Take other coefficients of the same vectors."""
        self.composition = composition

    def remove(self) -> None:
        """Stop injecting; a second call does nothing."""
        with suppress(ValueError):
            self._stack.remove(self)


class NNsightEngine(Engine):
    """Runs a model through nnsight; every call is one trace, or two where a gate is read first.

    Calls that the user makes of the model are not steered: see `steer.tracing.apply`.

    Args:
        architecture: The model's parts; with a remote model their weights need not be there.
        language_model: The model as nnsight holds it, a `TransformersModel`.
        remote: Whether the model runs on a server: True for the one nnsight is configured for, a
            URL for another, `"local"` for a rehearsal on this machine.
    """

    name = "nnsight"
    capabilities: frozenset[Capability] = frozenset({"scopes", "rows", "gate"})

    def __init__(
        self, architecture: Architecture, language_model: Any, remote: bool | str = False
    ) -> None:
        self.architecture = architecture
        self.language_model = language_model
        self.remote = remote
        self._stack: list[TraceAttachment] = []
        self._owner: int | None = None
        self._lock = threading.Lock()
        self._under_way = threading.Lock()

    # -- steering --------------------------------------------------------------------------------

    @property
    def attachments(self) -> tuple[TraceAttachment, ...]:
        """See `Engine.attachments`."""
        return tuple(self._stack)

    def attach(
        self, composition: Composition, *, weights: WeightMode = "auto", tokenizer: Any = None
    ) -> TraceAttachment:
        """See `Engine.attach`; residual sites only."""
        refuse(composition)
        with self._lock:
            if self._stack and self._owner != threading.get_ident():
                raise busy("steered", self._owner)
            self._owner = threading.get_ident()
            attachment = TraceAttachment(composition, self._stack)
            self._stack.append(attachment)
        return attachment

    # -- running ---------------------------------------------------------------------------------

    @torch.no_grad()
    def forward(
        self,
        batch: Batch,
        *,
        layers: Sequence[int] = (),
        logits: Logits = "response",
    ) -> Forward:
        """See `Engine.forward`; only the requested values leave the trace.

        Raises:
            RowsError: The call has another number of prompts than there are coefficient rows.
        """
        with self._calling():
            inputs, lengths = _inputs(batch, "right"), torch.tensor(batch.prompt_lengths)
            edits = self._edits(self._settings(batch, inputs, lengths), lengths)
            spans = [batch.wanted(row, logits) for row in range(len(batch.ids))]
            streams, rows = run(
                self.language_model,
                self.architecture.names["blocks"],
                inputs,
                edits,
                layers,
                spans if logits != "none" else [],
                self.remote,
            )
        return Forward(tuple(rows), batch.unpadded(streams, layers))

    def one_by_one(self, **options: Any) -> bool:
        """See `Engine.one_by_one`; a model on a server is not tried."""
        check_evaluating(self.architecture)
        return not self.remote and one_by_one(self.architecture, options)

    def generate(self, batch: Batch, **options: Any) -> list[list[int]]:
        """See `Engine.generate`; this is the model's own `generate` inside a trace.

        Raises:
            CapabilityError: The way to generate does not take one token of one text at a time,
                while a scope or a gate must know which.
            RowsError: There is another number of prompts than coefficient rows.
        """
        with self._calling():
            model: Any = self.architecture.model
            config = getattr(model, "generation_config", None)
            self._refuse(options, config)
            inputs, lengths = _inputs(batch, "left"), torch.tensor(batch.prompt_lengths)
            ends = end_tokens(options, config)
            options = with_padding(options, ends)
            edits = self._edits(self._settings(batch, inputs, lengths), lengths)
            name = self.architecture.names["blocks"]
            out = run_generation(
                self.language_model, name, inputs, edits, lengths, options, self.remote
            )
        return answers_of(out, inputs["input_ids"].shape[1], ends)

    def _settings(
        self, batch: Batch, inputs: Mapping[str, Tensor], lengths: Tensor
    ) -> list[Setting]:
        """Return the compositions with their gates evaluated, each in a trace of its own.

        Gates are read from the lowest layer upwards, so that whatever acts below a gate has been
        decided. Other compositions act at or above the layer of their own gate alone.
        """
        stack = [a.composition for a in self._stack]
        found = [setting_of(c, batch) for c in stack]
        gated = [(c.gate.layer, k, c.gate) for k, c in enumerate(stack) if c.gate is not None]
        waiting = {k for _, k, _ in gated}
        name = self.architecture.names["blocks"]
        shift = inputs["attention_mask"].long().argmax(dim=1)  # where each text begins
        for layer, k, gate in sorted(gated, key=lambda entry: entry[:2]):
            ready = [s for j, s in enumerate(found) if j not in waiting]
            here = [s for j, s in enumerate(found) if j < k and j not in waiting]
            edits = self._edits(ready, lengths, below=layer)
            if at := self._edits(here, lengths, below=layer + 1).get(layer):
                edits[layer] = at
            h = run(self.language_model, name, inputs, edits, [layer], [], self.remote)[0][layer]
            rows, columns = torch.arange(len(h)), shift + lengths - 1
            opened = gate(h.detach()[rows.to(h.device), columns.to(h.device)])
            found[k] = stack[k], found[k][1] * opened[:, gate.columns(stack[k].domains)].cpu()
            waiting.remove(k)
        return found

    def _edits(
        self, settings: Sequence[Setting], lengths: Tensor, below: int | None = None
    ) -> dict[int, list[Edit]]:
        return edits_of(settings, lengths, below=below, remote=bool(self.remote))

    def _refuse(self, options: Mapping[str, Any], config: Any) -> None:
        stack = [a.composition for a in self._stack]
        known = any(c.gate is not None or placed(c) for c in stack)
        for name in _ONE_BY_ONE if known else ():
            value = setting(options, config, name)
            if value is not None and not (name == "guidance_scale" and value == 1):
                raise CapabilityError(
                    "in a trace, scopes and gates need one new token of one text per forward",
                    found=f"{name}={value!r}",
                    expected="plain decoding: greedy, sampling or beams",
                    do=f"leave out {name}, or steer with the scope 'all' and without a gate",
                )

    @contextmanager
    def _calling(self) -> Iterator[None]:
        """Refuse a call in training mode, or during another one: nnsight cannot run two."""
        check_evaluating(self.architecture)
        if not self._under_way.acquire(blocking=False):
            raise busy("called", None)
        try:
            yield
        finally:
            self._under_way.release()


def _inputs(batch: Batch, side: Literal["left", "right"]) -> dict[str, Tensor]:
    ids, mask = batch.padded(side, torch.device("cpu"))
    return {"input_ids": ids, "attention_mask": mask.long()}
