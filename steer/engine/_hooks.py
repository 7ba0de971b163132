"""The engine of this library: forward hooks on a local Hugging Face model."""

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from steer.algebra import Composition
from steer.engine._ahead import Enough
from steer.engine._attachment import HookAttachment
from steer.engine._base import Batch, Capability, Engine, Forward, Way, check_evaluating
from steer.engine._call import Call, Part
from steer.engine._injector import injector_of
from steer.engine._markers import ends_in
from steer.engine._options import answer_of, end_tokens, with_padding
from steer.engine._reading import device_of
from steer.engine._threads import elsewhere
from steer.engine._together import one_by_one
from steer.network import Architecture, block_output
from steer.network._architecture.probe import uncompiled


class HooksEngine(Engine):
    """Runs a local model; capture and injection are hooks on its decoder blocks.

    Args:
        architecture: The model's parts.
    """

    name = "hooks"
    capabilities: frozenset[Capability] = frozenset(
        {"in_place", "weights", "scopes", "markers", "rows", "gate"}
    )

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture

    @property
    def attachments(self) -> tuple[HookAttachment, ...]:
        """See `Engine.attachments`; also those that another engine of the same model injects."""
        return tuple(injector_of(self.architecture).attached)

    def attach(
        self, composition: Composition, *, weights: Way = "auto", tokenizer: Any = None
    ) -> HookAttachment:
        """See `Engine.attach`."""
        injector = injector_of(self.architecture)
        return HookAttachment(injector, self.architecture, composition, weights, tokenizer)

    @torch.no_grad()
    def forward(
        self,
        batch: Batch,
        *,
        layers: Sequence[int] = (),
        logits: Literal["response", "all", "none"] = "response",
    ) -> Forward:
        """See `Engine.forward`; without logits the forward stops after the last wanted layer."""
        architecture = self.architecture
        check_evaluating(architecture)
        device = device_of(architecture)
        ids, mask = batch.padded("right", device)
        lengths = torch.tensor(batch.prompt_lengths, device=device)
        rows, width = ids.shape
        injector = injector_of(architecture)
        ends = ends_in(injector.markers, map(list, batch.ids), batch.prompt_lengths)
        call = Call(rows, width, 0, mask, None, lengths, part=_part(batch), ends=ends)
        last = architecture.n_layers - 1
        wanted = {*layers, *([last] if logits != "none" else [])}

        def run() -> None:
            with uncompiled():
                architecture.body(input_ids=ids, attention_mask=mask.long(), use_cache=False)

        def unembed(row: int) -> Tensor:
            at = batch.wanted(row, logits)
            with injector.calling(call.row(row, at)):
                return architecture.unembed(streams[last][row, at])

        with injector.calling(call):
            injector.decide(run)
            with _Captured(architecture, wanted, stops=logits == "none") as captured:
                run()
        streams = captured.streams
        return Forward(
            tuple(map(unembed, range(len(ids)))) if logits != "none" else (),
            tuple(
                torch.stack([streams[layer][r, : len(row)].to(device) for layer in layers])
                for r, row in enumerate(batch.ids)
            )
            if layers
            else (),
        )

    def one_by_one(self, **options: Any) -> bool:
        """See `Engine.one_by_one`; tried at the first call."""
        check_evaluating(self.architecture)
        return one_by_one(self.architecture, options)

    def generate(self, batch: Batch, **options: Any) -> list[list[int]]:
        """See `Engine.generate`; this is the model's own `generate`."""
        check_evaluating(self.architecture)
        model: Any = self.architecture.model
        device = device_of(self.architecture)
        ids, mask = batch.padded("left", device)
        ends = end_tokens(options, model.generation_config)
        options = with_padding(options, ends)
        with injector_of(self.architecture).taking(_part(batch)):
            out = model.generate(input_ids=ids, attention_mask=mask.long(), **options)
        sequences: Tensor = out if isinstance(out, Tensor) else out.sequences
        return [answer_of(row, ends) for row in sequences[:, ids.shape[1] :].tolist()]


def _part(batch: Batch) -> Part | None:
    return None if batch.rows is None else Part(batch.rows, batch.total or len(batch.ids))


class _Captured:
    """Keeps the outputs of some blocks of one forward, read after anything injected there.

    Other threads may call the model meanwhile: of theirs nothing is kept. With `stops` the forward
    ends, and the context with it, after the last of these blocks.
    """

    def __init__(self, architecture: Architecture, layers: set[int], *, stops: bool) -> None:
        self._thread = threading.get_ident()
        self._last = max(layers) if stops and layers else None
        self.streams: dict[int, Tensor] = {}
        self._architecture = architecture
        self._layers = layers
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "_Captured":
        try:
            for layer in sorted(self._layers):
                self._handles.append(self._hook(layer))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> bool:
        for handle in self._handles:
            handle.remove()
        return isinstance(error, Enough)

    def _keep(self, layer: int, stream: Tensor) -> None:
        if elsewhere(self._thread):
            return
        self.streams[layer] = stream
        if layer == self._last:
            raise Enough

    def _hook(self, layer: int) -> RemovableHandle:
        block = self._architecture.blocks[max(layer, 0)]
        if layer == -1:

            def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                self._keep(-1, args[0] if args else kwargs["hidden_states"])

            handle: RemovableHandle = block.register_forward_pre_hook(before, with_kwargs=True)
            return handle

        def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._keep(layer, block_output(output))

        kept: RemovableHandle = block.register_forward_hook(after)
        return kept
