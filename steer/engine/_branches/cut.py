"""Running a model from one of its blocks on, with the output of that block given."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from steer.engine._attention import PackedForward, UnpackableError, attending
from steer.engine._patches import Uncopied, hook_stream, replace
from steer.engine._reading import Hidden, run_blocks
from steer.network import Architecture, block_output, replace_output

Start = tuple[int, Any]  # a block and what it returned; -1 and None to start at the embedding


class _Given(nn.Module):
    """Stands in for a block and returns a given output, without the block's hooks.

    Attributes that the model's body reads from its blocks are those of the block.
    """

    def __init__(self, block: nn.Module, output: Any) -> None:
        super().__init__()
        self.__dict__["_block"] = block  # no part of this module
        self._output = output

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_block"], name)

    def forward(self, *_: object, **__: object) -> Any:
        """Return the given output."""
        return self._output


def run_cut(
    architecture: Architecture,
    start: Start,
    layer: int,
    inputs: Mapping[str, Tensor],
    forward: PackedForward,
    changes: Mapping[int, Callable[[Hidden], Hidden]] = MappingProxyType({}),
) -> tuple[Any, Hidden]:
    """Return a block's output before hooks of others see it, and the stream that they leave.

    The stream is changed at some layers on the way.

    Raises:
        UnpackableError: The model's attention cannot be followed.
    """
    raw: list[Any] = []
    found: list[Hidden] = []
    with (
        ExitStack() as hooks,
        _given(architecture, start),
        attending(architecture, forward, layer - start[0]),
    ):
        for changed, change in changes.items():
            hook_stream(architecture.blocks, changed, change, hooks.callback, first=True)
        block = architecture.blocks[layer]
        keep = block.register_forward_hook(lambda *called: raw.append(called[-1]), prepend=True)
        hooks.callback(keep.remove)
        run_blocks(architecture, (layer,), inputs, lambda _, h: found.append(h))
    if len(raw) != 1:
        raise UnpackableError("its attention does not go through transformers' interface")
    return raw[0], found[0]


@contextmanager
def _given(architecture: Architecture, start: Start) -> Iterator[None]:
    """Put stand-ins in the place of the blocks below a layer, in the list that holds them.

    The layer's own block stays, so that hooks of others on it see the given output, as they would
    see it after steering; its forward returns that output.
    """
    layer, output = start
    if layer < 0:
        yield
        return
    held = architecture.model.get_submodule(architecture.names["blocks"])
    names = list(held._modules)[:layer]
    blocks: Mapping[str, Any] = {name: held._modules[name] for name in names}
    if tuple(blocks.values()) != architecture.blocks[:layer]:
        raise UnpackableError("its blocks do not stand in one list")
    with ExitStack() as undo:
        given = Uncopied(lambda *_, **__: output)
        replace(architecture.blocks[layer], "forward", given, undo.callback)
        undo.callback(held._modules.update, blocks)
        for name, block in blocks.items():
            held._modules[name] = _Given(block, output)
        yield


def at_rows(output: Any, rows: Int[Tensor, " pos"]) -> Any:
    """Return the output of a block at some of its positions."""
    h = block_output(output)
    return replace_output(output, torch.index_select(h, 1, rows.to(h.device)))
