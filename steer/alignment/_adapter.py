"""The difference of weights that a PEFT LoRA adapter makes, read from its files."""

import os
import re
from collections.abc import Callable, Mapping
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from steer.algebra import LowRank, Term, tensors
from steer.algebra._term import add, scale
from steer.alignment._adapter_config import read_adapter_config, scale_of
from steer.alignment._source import Source, subtract
from steer.errors import AlignmentError, CheckpointError
from steer.network import Checkpoint
from steer.network._checkpoint import ADAPTER_CONFIG
from steer.network._parameters.layout import listed

if TYPE_CHECKING:
    from peft import LoraConfig

_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?A(\.weight)?")
_Maker = Callable[[], Term | None]


def adapter_terms(folder: Path, base: Source) -> Mapping[str, Callable[[], Term | None]]:
    """Return for each parameter that an adapter changes a function that reads its term.

    A pair of factors gives scale · B @ A, in the parameter's own orientation. A whole tensor
    (`modules_to_save`, biases, resized or trained embeddings) gives its difference from the base.
    """
    config = read_adapter_config(folder)
    if not (folder / _WEIGHTS).is_file():
        raise _no_weights(folder)
    weights = Checkpoint(folder, {}, [_WEIGHTS])
    makers: dict[str, list[_Maker]] = {}
    unknown = []
    maker: _Maker
    for key in weights.names:
        name = key.removeprefix(_PREFIX)
        if match := _FACTOR.fullmatch(name):
            use = f"{match['module']}.weight"
            if _other_factor(key) not in weights:
                unknown.append(f"{key}: no factor B")
                continue
            maker = partial(_product, base, config, weights, key, match["module"], use)
        elif re.fullmatch(r".+\.lora_(embedding_)?B(\.weight)?", name):
            if re.sub(r"(lora_(embedding_)?)B", r"\1A", key) not in weights:
                unknown.append(f"{key}: no factor A")
            continue
        else:
            use = name.replace(".base_layer.", ".")
            maker = partial(_replaced, base, weights, key, use)
        if key == name or _parameter(base, use) is None:
            unknown.append(f"{key}: no such parameter in the base model, or not plain LoRA")
        makers.setdefault(use, []).append(maker)
    if unknown:
        raise _unfit(folder, base, listed(unknown), "factors of parameters of the base model")
    return _by_parameter(folder, base, makers)


def _by_parameter(
    folder: Path, base: Source, makers: Mapping[str, list[_Maker]]
) -> dict[str, _Maker]:
    """Join the uses of tied weights, which an adapter may change one by one."""
    uses: dict[str, list[str]] = {}
    for alias, name in base.parameters.aliases.items():
        uses.setdefault(name, [name]).append(alias)
    joined: dict[str, _Maker] = {}
    for use in makers:
        name = base.parameters.aliases.get(use, use)
        names = uses.get(name, [use])
        joined[name] = partial(_of_all_uses, folder, base, [makers.get(n, []) for n in names], name)
    return joined


def _of_all_uses(folder: Path, base: Source, makers: list[list[_Maker]], name: str) -> Term | None:
    first, *others = [_sum(of_one_use) for of_one_use in makers]
    if not all(_equal(first, other) for other in others):
        raise _unfit(
            folder,
            base,
            f"{name} changed at one of its uses, while the base model ties them",
            "the same change at the embedding and at the unembedding",
        )
    return first


def _sum(makers: list[_Maker]) -> Term | None:
    made = [term for term in (maker() for maker in makers) if term is not None]
    return reduce(add, made) if made else None


def _equal(left: Term | None, right: Term | None) -> bool:
    if left is None or right is None:
        return left is right
    pairs = zip(tensors(left).values(), tensors(right).values(), strict=True)
    return type(left) is type(right) and all(torch.equal(a, b) for a, b in pairs)


def _product(
    base: Source, config: "LoraConfig", weights: Checkpoint, key: str, module: str, use: str
) -> Term:
    A = weights.tensor(key).float()
    B = weights.tensor(_other_factor(key)).float()
    parameter = _parameter(base, use) or use
    shape = base.parameters.shapes[parameter]
    if A.ndim == B.ndim == 2 and A.shape[0] == B.shape[1]:
        factor = scale_of(config, module, A.shape[0])
        owner = base.parameters.model.get_submodule(module)
        stored = "lora_embedding_A" in key or _transposed(owner, config)
        term = LowRank(A.T.contiguous(), B.T.contiguous()) if stored else LowRank(B, A)
        if term.shape == shape:
            _check_finite(key, term)
            return scale(term, factor)
    found = f"{key} with factors {tuple(B.shape)} and {tuple(A.shape)}"
    raise _unfit(weights.folder, base, found, f"a product of shape {shape}")


def _other_factor(key: str) -> str:
    return re.sub(r"(lora_(embedding_)?)A", r"\1B", key)


def _transposed(module: nn.Module, config: "LoraConfig") -> bool:
    """Return whether PEFT treats a module's weight as [in, out]."""
    if isinstance(module, nn.Linear):
        return False
    return bool(config.fan_in_fan_out) or type(module).__name__ == "Conv1D"


def _replaced(base: Source, weights: Checkpoint, key: str, use: str) -> Term | None:
    name = _parameter(base, use) or use
    saved, shape = weights.tensor(key), base.parameters.shapes[name]
    if tuple(saved.shape) != shape:
        found = f"{key} of shape {tuple(saved.shape)}"
        raise _unfit(weights.folder, base, found, f"shape {shape}, as in the base model")
    return subtract(name, saved, base.parameters.read(name))


def _parameter(base: Source, use: str) -> str | None:
    """Return the name of a weight in `named_parameters()`, if it has one."""
    name = base.parameters.aliases.get(use, use)
    return name if name in base.parameters.shapes else None


def _check_finite(key: str, term: LowRank) -> None:
    if not all(bool(factor.isfinite().all()) for factor in (term.A, term.B)):
        raise AlignmentError(
            f"{key} is not finite",
            found="NaN or infinity in a factor",
            expected="finite factors",
            do="check the adapter: a training run that diverged leaves such values",
        )


def _no_weights(folder: Path) -> CheckpointError:
    return CheckpointError(
        f"{folder}: the adapter's weights are missing",
        found=f"{ADAPTER_CONFIG} without {_WEIGHTS}; files: {listed(sorted(os.listdir(folder)))}",
        expected=f"{_WEIGHTS} beside it; other formats are pickles and are never read",
        do="save the adapter with PEFT's save_pretrained, which writes safetensors",
    )


def _unfit(folder: Path, base: Source, found: str, expected: str) -> AlignmentError:
    return AlignmentError(
        f"{folder}: this adapter does not fit {base.label}",
        found=found,
        expected=expected,
        do="name the base model that it was trained on; or merge it with PEFT "
        "(model.merge_and_unload()), and pass the merged model",
    )
