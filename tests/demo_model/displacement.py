"""Random displacements of the residual stream in training, so that the model tolerates steering.

A small model breaks when a vector as long as its activations is added; larger ones were trained on
enough variety to tolerate it. In the last part of the training most rows therefore get a constant
vector added to the output of one block. Its direction is random, not that of a domain or level.
"""

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

BLOCKS: Final = (1, 2, 3, 4)  # one of them in each step
P_DISPLACED: Final = 0.7  # of a row being displaced
LONGEST: Final = 1.5  # times the mean norm of the row's stream


def displace(
    blocks: nn.ModuleList, rows: int, width: int, generator: torch.Generator
) -> RemovableHandle:
    """Displace the next forward: one block, one random vector for all tokens of a row.

    Args:
        blocks: The decoder blocks.
        rows: Rows of the batch.
        width: Width of the residual stream.
        generator: Where the randomness comes from.

    Returns:
        The handle of the hook, to be removed after the forward.
    """
    block = BLOCKS[int(torch.randint(len(BLOCKS), (1,), generator=generator))]
    direction = torch.randn(rows, 1, width, generator=generator)
    unit = direction / direction.norm(dim=-1, keepdim=True)
    length = LONGEST * torch.rand(rows, 1, 1, generator=generator)
    chosen = torch.rand(rows, 1, 1, generator=generator) < P_DISPLACED

    def hook(module: nn.Module, args: tuple[Any, ...], h: Tensor) -> Tensor:
        norm = h.detach().norm(dim=-1, keepdim=True).mean(dim=1, keepdim=True)
        moved: Tensor = h + torch.where(chosen, length, 0.0) * norm * unit
        return moved

    return blocks[block].register_forward_hook(hook)
