"""The difference of weights that a PEFT LoRA adapter makes, read from its files."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
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
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(embedding_)?(?P<factor>[AB])(\.weight)?")
_OTHER = {"A": "B", "B": "A"}
_Maker = Callable[[], Term | None]


def adapter_terms(folder: Path, base: Source) -> dict[str, _Maker]:
    """Return for each parameter that an adapter changes a function that reads its term.

    A pair of factors gives scale · B @ A, in the parameter's own orientation. A whole tensor
    (`modules_to_save`, biases, resized or trained embeddings) gives its difference from the base.
    """
    config = read_adapter_config(folder)
    if not (folder / _WEIGHTS).is_file():
        raise _no_weights(folder)
    adapter = _Adapter(base, config, Checkpoint(folder, {}, [_WEIGHTS]))
    makers = adapter.makers()
    uses: dict[str, list[str]] = {}  # of tied weights, which an adapter may change one by one
    for alias, name in base.parameters.aliases.items():
        uses.setdefault(name, [name]).append(alias)
    joined: dict[str, _Maker] = {}
    for use in makers:
        name = base.parameters.aliases.get(use, use)
        of_each_use = [makers.get(n, []) for n in uses.get(name, [use])]
        joined[name] = partial(adapter.joined, name, of_each_use)
    return joined


@dataclass(frozen=True, eq=False, slots=True)
class _Adapter:
    """The configuration and the weights of an adapter, with its base model."""

    base: Source
    config: "LoraConfig"
    weights: Checkpoint

    def makers(self) -> dict[str, list[_Maker]]:
        """Return for each use of a parameter the functions that read its terms."""
        makers: dict[str, list[_Maker]] = {}
        unknown = []
        for key in self.weights.names:
            name = key.removeprefix(_PREFIX)
            match = _FACTOR.fullmatch(name)
            if match and _other_factor(key) not in self.weights.names:
                unknown.append(f"{key}: no factor {_OTHER[match['factor']]}")
            elif match is None or match["factor"] == "A":
                use = f"{match['module']}.weight" if match else name.replace(".base_layer.", ".")
                if key == name or self._parameter(use) not in self.base.parameters.shapes:
                    unknown.append(f"{key}: no such parameter in the base model, or not plain LoRA")
                maker = self._product if match else self._replaced
                makers.setdefault(use, []).append(partial(maker, key, use))
        if unknown:
            raise self._unfit(listed(unknown), "factors of parameters of the base model")
        return makers

    def joined(self, name: str, of_each_use: list[list[_Maker]]) -> Term | None:
        """Return the term of a parameter, which must be the same at each of its uses."""
        first, *others = [_sum(makers) for makers in of_each_use]
        if not all(_equal(first, other) for other in others):
            raise self._unfit(
                f"{name} changed at one of its uses, while the base model ties them",
                "the same change at the embedding and at the unembedding",
            )
        return first

    def _product(self, key: str, use: str) -> Term:
        module = use.removesuffix(".weight")
        A, B = (self.weights.tensor(name).float() for name in (key, _other_factor(key)))
        shape = self.base.parameters.shapes[self._parameter(use)]
        if A.ndim == B.ndim == 2 and A.shape[0] == B.shape[1]:
            owner = self.base.parameters.model.get_submodule(module)
            stored = "lora_embedding_A" in key or self._transposed(owner)
            term = LowRank(A.T.contiguous(), B.T.contiguous()) if stored else LowRank(B, A)
            factor = scale_of(self.config, module, A.shape[0])
            if term.shape == shape:
                _check_finite(key, term)
                return scale(term, factor)
        found = f"{key} with factors {tuple(B.shape)} and {tuple(A.shape)}"
        raise self._unfit(found, f"a product of shape {shape}")

    def _replaced(self, key: str, use: str) -> Term | None:
        name = self._parameter(use)
        saved, shape = self.weights.tensor(key), self.base.parameters.shapes[name]
        if tuple(saved.shape) != shape:
            found = f"{key} of shape {tuple(saved.shape)}"
            raise self._unfit(found, f"shape {shape}, as in the base model")
        return subtract(name, saved, self.base.parameters.read(name))

    def _parameter(self, use: str) -> str:
        """Return the name of a weight in `named_parameters()`."""
        return self.base.parameters.aliases.get(use, use)

    def _transposed(self, module: nn.Module) -> bool:
        """Return whether PEFT treats a module's weight as [in, out]."""
        if isinstance(module, nn.Linear):
            return False
        return bool(self.config.fan_in_fan_out) or type(module).__name__ == "Conv1D"

    def _unfit(self, found: str, expected: str) -> AlignmentError:
        return AlignmentError(
            f"{self.weights.folder}: this adapter does not fit {self.base.label}",
            found=found,
            expected=expected,
            do="name the base model that it was trained on; or merge it with PEFT "
            "(model.merge_and_unload()), and pass the merged model",
        )


def _other_factor(key: str) -> str:
    return re.sub(r"(lora_(?:embedding_)?)([AB])", lambda match: match[1] + _OTHER[match[2]], key)


def _sum(makers: list[_Maker]) -> Term | None:
    made = [term for term in (maker() for maker in makers) if term is not None]
    return reduce(add, made) if made else None


def _equal(left: Term | None, right: Term | None) -> bool:
    if left is None or right is None:
        return left is right
    pairs = zip(tensors(left).values(), tensors(right).values(), strict=True)
    return type(left) is type(right) and all(torch.equal(a, b) for a, b in pairs)


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
