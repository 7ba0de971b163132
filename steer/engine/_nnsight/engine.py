"""The engine that runs a model in nnsight traces, on this machine or on a server."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal

import torch
from torch import Tensor

from steer.algebra import Composition
from steer.engine._base import Batch, Capability, Engine, Forward, WeightMode, check_evaluating
from steer.engine._nnsight.program import CallSetting, edits_of, refuse, rows_of
from steer.engine._nnsight.traces import run, run_generation
from steer.engine._options import answers_of, end_tokens, setting, with_padding
from steer.engine._together import one_by_one
from steer.errors import BusyModelError, CapabilityError
from steer.network import Architecture

_ONE_BY_ONE = (  # of `generate`: several tokens in a forward, or a second text beside the prompt
    "assistant_model",
    "assistant_early_exit",
    "custom_generate",
    "guidance_scale",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
)


class TraceAttachment:
    """A composition that the engine's own traces inject until it is removed."""

    weights: WeightMode = "auto"

    def __init__(self, composition: Composition, stack: "list[TraceAttachment]") -> None:
        self.composition = composition
        self._stack = stack

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
                raise _busy("steered")
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
        logits: Literal["response", "all", "none"] = "response",
    ) -> Forward:
        """See `Engine.forward`; only the requested values leave the trace.

        Raises:
            RowsError: The call has another number of prompts than there are coefficient rows.
        """
        with self._calling():
            inputs, lengths = _inputs(batch, "right"), torch.tensor(batch.prompt_lengths)
            edits = edits_of(self._settings(batch, inputs, lengths), lengths, remote=self._sent)
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
        return not self._sent and one_by_one(self.architecture, options)

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
            settings = self._settings(batch, inputs, lengths)
            edits = edits_of(settings, lengths, remote=self._sent)
            name = self.architecture.names["blocks"]
            out = run_generation(
                self.language_model, name, inputs, edits, lengths, options, self.remote
            )
        return answers_of(out, inputs["input_ids"].shape[1], ends)

    @property
    def _sent(self) -> bool:
        return bool(self.remote)

    def _settings(
        self, batch: Batch, inputs: Mapping[str, Tensor], lengths: Tensor
    ) -> list[CallSetting]:
        """Return the compositions with their gates evaluated, each in a trace of its own.

        Gates are read from the lowest layer upwards, so that whatever acts below a gate has been
        decided. Other compositions act at or above the layer of their own gate alone.
        """
        stack = [a.composition for a in self._stack]
        found = [CallSetting(c, rows_of(c, batch)) for c in stack]
        gated = [(c.gate.layer, k, c.gate) for k, c in enumerate(stack) if c.gate is not None]
        waiting = {k for _, k, _ in gated}
        for layer, k, gate in sorted(gated, key=lambda entry: entry[:2]):
            ready = [s for j, s in enumerate(found) if j not in waiting]
            edits = edits_of(ready, lengths, below=layer, remote=self._sent)
            here = [s for j, s in enumerate(found) if j < k and j not in waiting]
            at = edits_of(here, lengths, below=layer + 1, remote=self._sent).get(layer)
            x = self._last_prompt_tokens(inputs, edits | ({layer: at} if at else {}), layer, batch)
            weights = gate(x)[:, gate.columns(found[k].composition.domains)].cpu()
            found[k] = CallSetting(found[k].composition, found[k].c * weights)
            waiting.remove(k)
        return found

    @torch.no_grad()
    def _last_prompt_tokens(
        self, inputs: Mapping[str, Tensor], edits: Any, layer: int, batch: Batch
    ) -> Tensor:
        name = self.architecture.names["blocks"]
        streams, _ = run(self.language_model, name, inputs, edits, [layer], [], self.remote)
        shift = inputs["attention_mask"].long().argmax(dim=1)  # where each text begins
        columns = shift + torch.tensor(batch.prompt_lengths) - 1
        h = streams[layer]
        return h[torch.arange(len(h), device=h.device), columns.to(h.device)]

    def _refuse(self, options: Mapping[str, Any], config: Any) -> None:
        parts = [part for a in self._stack for part in a.composition.parts.values()]
        gated = any(a.composition.gate is not None for a in self._stack)
        if not gated and all(part.scope.everything for part in parts):
            return
        for name in _ONE_BY_ONE:
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
            raise _busy("called")
        try:
            yield
        finally:
            self._under_way.release()


def _busy(how: str) -> BusyModelError:
    return BusyModelError(
        f"this model is being {how} by another thread",
        found="a second thread",
        expected="one thread per model that nnsight runs",
        do="use one copy of the model per thread, or a coefficient row per prompt",
    )


def _inputs(batch: Batch, side: Literal["left", "right"]) -> dict[str, Tensor]:
    ids, mask = batch.padded(side, torch.device("cpu"))
    return {"input_ids": ids, "attention_mask": mask.long()}
