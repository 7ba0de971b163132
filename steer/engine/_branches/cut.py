"""Running a model from one of its blocks on: what is below is taken as given."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from steer.engine._attention import UnpackableError
from steer.engine._branches.attention import Attending, attending
from steer.engine._patches import Uncopied, replace
from steer.engine._reading import run_blocks
from steer.network import Architecture, block_output, replace_output

Hidden = Float[Tensor, "batch pos d_model"]
Change = Callable[[int, Hidden], Hidden]


class _Given(nn.Module):
    """Stands where a block was and returns what is given, without the block's hooks.

    Attributes that the model's body reads from its blocks are those of the block.
    """

    def __init__(self, block: nn.Module, output: Any) -> None:
        super().__init__()
        self.__dict__["_block"] = block  # no part of this module
        self._output = output

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_block"], name)

    def forward(self, *_: object, **__: object) -> Any:
        """Return what was given."""
        return self._output


def run_below(
    architecture: Architecture,
    layer: int,
    ids: Int[Tensor, "batch pos"],
    positions: Int[Tensor, "batch pos"],
    task: Attending,
    known: tuple[int, Any] = (-1, None),
) -> Any:
    """Return what a block of the unsteered model returns, before hooks of others see it."""
    raw: list[Any] = []
    block = architecture.blocks[layer]
    keep = block.register_forward_hook(lambda *called: raw.append(called[-1]), prepend=True)
    inputs = {"input_ids": ids, "position_ids": positions}
    try:
        with _given(architecture, *known), attending(architecture, task):
            run_blocks(architecture, (layer,), inputs, lambda *_: None)
    finally:
        keep.remove()
    if task.calls < layer - known[0] or len(raw) != 1:
        raise UnpackableError("its attention does not go through transformers' interface")
    return raw[0]


def run_above(
    architecture: Architecture,
    layer: int,
    below: Any,
    ids: Int[Tensor, "batch pos"],
    positions: Int[Tensor, "batch pos"],
    task: Attending,
    change: tuple[tuple[int, ...], Change],
) -> Hidden:
    """Return the output of a model's last block, given that of an earlier one."""
    last = architecture.n_layers - 1
    found: list[Hidden] = []
    inputs = {"input_ids": ids, "position_ids": positions}
    before = task.calls
    with (
        _given(architecture, layer, below),
        _changing(architecture, *change),
        attending(architecture, task),
    ):
        run_blocks(architecture, (last,), inputs, lambda _, h: found.append(h))
    if task.calls - before < last - layer:
        raise UnpackableError("its attention does not go through transformers' interface")
    return found[0]


@contextmanager
def _given(architecture: Architecture, layer: int, below: Any) -> Iterator[None]:
    """Put stand-ins in the place of the blocks below a layer, in the list that holds them.

    The layer's own block stays, so that hooks of others on it see what is given, as they would
    see it after steering; its forward returns what is given.
    """
    if layer < 0:
        yield
        return
    held = architecture.model.get_submodule(architecture.names["blocks"])
    names = list(held._modules)[:layer]
    blocks: Mapping[str, Any] = {name: held._modules[name] for name in names}
    if tuple(blocks.values()) != architecture.blocks[:layer]:
        raise UnpackableError("its blocks do not stand in one list")
    undo: list[Callable[[], None]] = []
    try:
        given = Uncopied(lambda *_, **__: below)
        replace(architecture.blocks[layer], "forward", given, undo.append)
        for name, block in blocks.items():
            held._modules[name] = _Given(block, below)
        yield
    finally:
        held._modules.update(blocks)
        for restore in undo:
            restore()


@contextmanager
def _changing(
    architecture: Architecture, layers: tuple[int, ...], change: Change
) -> Iterator[None]:
    """Steer the outputs of some blocks, in front of all other hooks."""
    handles = []

    def after(layer: int) -> Callable[[nn.Module, Any, Any], Any]:
        return lambda module, args, out: replace_output(out, change(layer, block_output(out)))

    def first(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        h = change(-1, args[0] if args else kwargs["hidden_states"])
        return ((h, *args[1:]), kwargs) if args else ((), {**kwargs, "hidden_states": h})

    try:
        for layer in layers:
            block = architecture.blocks[max(layer, 0)]
            handles.append(
                block.register_forward_pre_hook(first, prepend=True, with_kwargs=True)
                if layer == -1
                else block.register_forward_hook(after(layer), prepend=True)
            )
        yield
    finally:
        for handle in handles:
            handle.remove()


def rows_of(output: Any, rows: Int[Tensor, " pos"]) -> Any:
    """Return what a block returned at some of its positions only."""
    h = block_output(output)
    return replace_output(output, torch.index_select(h, 1, rows.to(h.device)))
