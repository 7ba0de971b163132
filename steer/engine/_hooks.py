"""The engine of this library: forward hooks on a local Hugging Face model."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from steer.algebra import Composition, Weight
from steer.engine._base import (
    Batch,
    Capability,
    Engine,
    Forward,
    Logits,
    WeightMode,
    check_evaluating,
)
from steer.engine._call import BatchSlice, Call
from steer.engine._injector import injector_of
from steer.engine._markers import ends_in, markers_of
from steer.engine._options import answers_of, end_tokens, with_padding
from steer.engine._reading import device_of, reading
from steer.engine._runtime import outliving
from steer.engine._steering import Steering
from steer.engine._together import one_by_one
from steer.engine._weights.merging import Merging
from steer.engine._weights.plan import Plan, plan
from steer.network import Architecture
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
    def attachments(self) -> tuple[Steering, ...]:
        """See `Engine.attachments`; also those that another engine of the same model injects."""
        return injector_of(self.architecture).stack

    @outliving()
    def attach(
        self, composition: Composition, *, weights: WeightMode = "auto", tokenizer: Any = None
    ) -> Steering:
        """See `Engine.attach`."""
        injector, markers = injector_of(self.architecture), markers_of(composition, tokenizer)
        found = Plan()
        with ExitStack() as undo:
            undo.callback(injector.settle)
            if any(isinstance(site, Weight) for site in composition.sites):
                with injector.without_hooks(always=True):
                    found = plan(composition, self.architecture, weights)
            merging = Merging(self.architecture.model, found.merged)
            steering = Steering(composition, found.units, injector, markers, merging, weights)
            steering.enter()
            undo.pop_all()
        return steering

    @torch.no_grad()
    def forward(
        self,
        batch: Batch,
        *,
        layers: Sequence[int] = (),
        logits: Logits = "response",
    ) -> Forward:
        """See `Engine.forward`; without logits the forward stops after the last wanted layer."""
        architecture = self.architecture
        check_evaluating(architecture)
        device = device_of(architecture)
        ids, mask = batch.padded("right", device)
        lengths = torch.tensor(batch.prompt_lengths, device=device)
        injector = injector_of(architecture)
        ends = ends_in(injector.markers, map(list, batch.ids), batch.prompt_lengths)
        rows, width = ids.shape
        call = Call(rows, width, 0, mask, None, lengths, batch_slice=_slice(batch), ends=ends)
        last = architecture.n_layers - 1
        wanted = sorted({*layers, *([last] if logits != "none" else [])})
        streams: dict[int, Tensor] = {}

        def run() -> None:
            with uncompiled():
                architecture.body(input_ids=ids, attention_mask=mask.long(), use_cache=False)

        def keep(index: int, h: Tensor) -> None:
            streams[wanted[index]] = h

        def unembed(row: int) -> Tensor:
            at = batch.wanted(row, logits)
            with injector.during_call(call.row(row, at)):
                return architecture.unembed(streams[last][row, at])

        with injector.during_call(call):
            injector.decide(run)
            with reading(architecture, wanted, keep, stop=logits == "none", alone=False):
                run()
        rows_of_logits = map(unembed, range(rows)) if logits != "none" else ()
        return Forward(tuple(rows_of_logits), batch.unpadded(streams, layers, device))

    def one_by_one(self, **options: Any) -> bool:
        """See `Engine.one_by_one`; tried at the first call."""
        check_evaluating(self.architecture)
        return one_by_one(self.architecture, options)

    def generate(self, batch: Batch, **options: Any) -> list[list[int]]:
        """See `Engine.generate`; this is the model's own `generate`."""
        check_evaluating(self.architecture)
        model: Any = self.architecture.model
        ids, mask = batch.padded("left", device_of(self.architecture))
        ends = end_tokens(options, model.generation_config)
        options = with_padding(options, ends)
        with injector_of(self.architecture).batch_slice(_slice(batch)):
            out = model.generate(input_ids=ids, attention_mask=mask.long(), **options)
        return answers_of(out, ids.shape[1], ends)


def _slice(batch: Batch) -> BatchSlice | None:
    return None if batch.rows is None else BatchSlice(batch.rows, batch.total or len(batch.ids))
