"""The decoder blocks of a vLLM model: found, their arithmetic verified, and steered by a hook."""

import inspect
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from steer.algebra import Vector, Weight
from steer.errors import ArchitectureError, CapabilityError
from steer.serving._bank import Bank

_POSITIONS = ("positions", "position_ids")
TOKENS = 4  # of the step with which a block is verified


def attach(model: nn.Module, config: Any, bank: Bank) -> None:
    """Have every block with directions add its displacement, after its arithmetic was verified."""
    blocks = find_blocks(model, config)
    for layer, directions in bank.directions.items():
        block = blocks[layer]
        verify(block, config)
        block.register_buffer("steer_directions", directions, persistent=False)
        block.register_buffer("steer_coefficients", bank.coefficients, persistent=False)
        block.register_forward_hook(_add, prepend=True)


def _add(block: Any, inputs: object, output: Any) -> Any:
    """Return a block's output with the displacement of each token: all that the graph gains."""
    h = output[0] if isinstance(output, tuple) else output
    moved = block.steer_coefficients[: h.shape[-2]] @ block.steer_directions
    h = h + moved.to(h.dtype)
    return (h, *output[1:]) if isinstance(output, tuple) else h


def find_blocks(model: nn.Module, config: Any) -> nn.ModuleList:
    """Return the list of decoder blocks: as many as the model's configuration says."""
    count = config.model_config.get_total_num_hidden_layers()
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    }
    outer = [n for n in found if not any(n != o and n.startswith(f"{o}.") for o in found)]
    if len(outer) != 1:
        raise ArchitectureError(
            f"the decoder blocks of {type(model).__name__} were not found",
            found=f"module lists of length {count}: {', '.join(outer) or 'none'}",
            expected="one",
            do="this architecture cannot be steered in vLLM; use transformers",
        )
    return found[outer[0]]


def verify(block: nn.Module, config: Any) -> None:
    """Check that adding to the first output of a block is adding to its residual stream.

    A block of vLLM returns the stream, or two tensors (h, r) whose sum it is: the next block adds
    them. f(h + v, r) = f(h, r + v) shows the sum, f(h, r + v) = f(h, r) that h alone is the
    stream. What its attention adds is set to zero: there is no cache of keys and values yet. A
    block of transformers, which vLLM runs where it has none of its own, returns the stream alone.

    Raises:
        ArchitectureError: Neither holds, or the block takes other arguments.
    """
    from vllm.forward_context import set_forward_context
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase

    if type(block).__module__.startswith("transformers.models."):
        return
    parameters = inspect.signature(block.forward).parameters
    parameter = next(block.parameters())
    device, dtype = parameter.device, config.model_config.dtype
    shape = (3, TOKENS, config.model_config.get_hidden_size())
    generator = torch.Generator().manual_seed(0)
    h, r, v = torch.randn(shape, generator=generator).to(device, dtype)
    known: dict[str, Any] = {"hidden_states": h, "residual": r}
    known |= {name: torch.arange(TOKENS, device=device) for name in _POSITIONS}
    given = {name: known[name] for name in parameters if name in known}
    missing = [
        name
        for name, p in parameters.items()
        if name not in given and p.default is p.empty and p.kind is not p.VAR_KEYWORD
    ]
    if missing or "hidden_states" not in given:
        raise _unknown(block, f"a block that takes {', '.join(parameters)}")

    def run(**changed: Tensor) -> Tensor:
        with ExitStack() as stack:
            for module in block.modules():
                if isinstance(module, AttentionLayerBase):
                    handle = module.register_forward_hook(_nothing)
                    stack.callback(handle.remove)
            stack.enter_context(torch.inference_mode())
            stack.enter_context(set_forward_context(None, config, num_tokens=TOKENS))
            out = block(**{**given, **{n: x.clone() for n, x in changed.items()}})
        parts = out if isinstance(out, tuple) else (out,)
        tensors = [part.float() for part in parts if isinstance(part, Tensor)]
        if not tensors or any(part.shape != h.shape for part in tensors):
            raise _unknown(block, f"outputs {[tuple(part.shape) for part in tensors]}")
        return torch.stack(tensors).sum(dim=0)

    if "residual" not in given:
        out = run(hidden_states=h)
        moved = run(hidden_states=h + v)
        if torch.equal(out, moved):
            raise _unknown(block, "an output that does not depend on hidden_states")
        return
    base, left = run(hidden_states=h, residual=r), run(hidden_states=h + v, residual=r)
    right = run(hidden_states=h, residual=r + v)
    allowed = 64 * torch.finfo(dtype).eps * float((left - base).norm())
    if float((left - right).norm()) > allowed and float((right - base).norm()) > allowed:
        raise _unknown(block, "a residual that is neither added to hidden_states nor unused")


def check_modules(model: nn.Module, vectors: Mapping[str, Vector]) -> None:
    """Refuse weight vectors of modules for which vLLM has no adapters.

    Raises:
        CapabilityError: There is such a module.
    """
    from vllm.lora.layers import BaseLayerWithLoRA

    packed: dict[str, list[str]] = getattr(model, "packed_modules_mapping", {})
    able = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, BaseLayerWithLoRA)
    }
    known = {own for name in able for own in (name, *packed.get(name, ()))}
    sites = [site for vector in vectors.values() for site in vector.sites]
    used = {site.name.removesuffix(".weight") for site in sites if isinstance(site, Weight)}
    if other := sorted(name for name in used if name.rpartition(".")[2] not in known):
        raise CapabilityError(
            "vLLM has no adapters for weights that these vectors change",
            found=", ".join(other[:4]),
            expected=f"modules named {', '.join(sorted(known))}",
            do="merge the vectors instead: steer merge",
        )


def _nothing(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
    return torch.zeros_like(output)


def _unknown(block: nn.Module, found: str) -> ArchitectureError:
    return ArchitectureError(
        f"{type(block).__name__} of vLLM cannot be steered",
        found=found,
        expected="a block that returns the residual stream, or two tensors whose sum it is",
        do="use transformers, or report this architecture",
    )
