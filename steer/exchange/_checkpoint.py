"""A plain checkpoint in which directions stand in biases, which any engine then serves.

A direction can be a bias only where some bias of its block moves the output of the block by just
itself: behind the last sum, without a norm in between. Which one does is tried out on the model.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steer.algebra import Dense, Site, Term, Vector, Weight
from steer.errors import CheckpointError
from steer.exchange._registry import Format, register_format

_TOLERANCE = 1e-3  # relative: float32 leaves 1e-6, and a bias that something else reads 1e-1


def _write(vector: Vector, path: Path, *, base: str | Path) -> None:
    """Write the checkpoint `base`, a folder or Hub id, with the directions in its biases."""
    from transformers import AutoModelForCausalLM

    from steer.merge import merge_checkpoint
    from steer.network import Checkpoint, find_architecture

    folder = Checkpoint.open(base).folder
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    except Exception as error:  # configurations raise classes of their own
        raise CheckpointError(
            f"{folder}: this model cannot be loaded",
            found=f"{type(error).__name__}: {error}",
            expected="a causal language model of transformers and its weights",
            do="name a folder that model.save_pretrained wrote",
        ) from error
    parts = find_architecture(model)
    terms: dict[Site, Term] = {}
    for layer in vector.layers:
        if layer >= parts.n_layers or vector.d_model != parts.d_model:
            raise FORMAT.refused(
                f"layer {layer}, of width {vector.d_model}",
                f"{parts.n_layers} layers of width {parts.d_model}",
                "name the model that the vector was made for",
            )
        name = f"{parts.names['blocks']}.{layer}.{_slot(parts.body, parts.blocks[layer])}"
        terms[Weight(name)] = Dense(vector.direction(layer))
    merge_checkpoint(folder, [(Vector(terms), 1.0)], path, progress=False)


def _slot(body: nn.Module, block: nn.Module) -> str:
    """Return the name of a bias that moves the output of its block by just itself."""
    before = _output(body, block)
    probe = torch.randn(before.shape[-1], generator=torch.Generator().manual_seed(0))
    for name, parameter in reversed(list(block.named_parameters())):
        if parameter.shape == probe.shape and name.endswith("bias"):
            kept = parameter.data
            parameter.data = kept + probe
            moved = _output(body, block) - before
            parameter.data = kept
            if float((moved - probe).norm() / probe.expand_as(moved).norm()) < _TOLERANCE:
                return name
    raise FORMAT.refused(
        "a direction for a block without a bias that only adds to its output",
        "such a bias, as GPT-2, GPT-NeoX and OPT have",
        "serve it by hook, or with an engine that reads another format",
    )


def _output(body: nn.Module, block: nn.Module) -> Float[Tensor, "pos d_model"]:
    """Return the output of a block for a short text."""
    found: list[Tensor] = []

    def keep(module: nn.Module, given: object, output: Tensor | tuple[Tensor, ...]) -> None:
        found.append(output if isinstance(output, Tensor) else output[0])

    hook = block.register_forward_hook(keep)
    try:
        with torch.no_grad():
            body(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False)
    finally:
        hook.remove()
    return found[0].reshape(3, -1)


FORMAT = register_format(
    Format(
        name="checkpoint",
        what="every engine: a model with the directions in its biases; a folder",
        write=_write,
    )
)
