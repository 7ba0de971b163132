"""Weights that are no plain floating-point tensors are refused, whatever library made them."""

import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steer import Model, alignment_vector
from steer.errors import AlignmentError, SteerError
from tests.tiny import tiny_model, tiny_tokenizer

NAME = "model.layers.0.mlp.up_proj"


class Codes(torch.Tensor):
    """A tensor that says float32 and holds 8 bits, as subclasses of several libraries do."""


class Holding(nn.Module):
    """A linear module whose codes stand in a buffer, an attribute, or an object of its own."""

    def __init__(self, linear: nn.Linear, place: str) -> None:
        super().__init__()
        scale = linear.weight.detach().abs().amax(dim=1, keepdim=True) / 127
        codes = (linear.weight.detach() / scale).round().to(torch.int8)
        self.register_buffer("scale", scale)
        if place == "object":
            self.packed = [codes]
        elif place == "buffer":
            self.register_buffer("packed", codes)
        else:
            self.packed = codes
        self.place = place

    def get_extra_state(self) -> Any:
        return {"codes": self.packed} if self.place == "object" else torch.empty(0)

    def set_extra_state(self, state: Any) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        codes: Any = self.packed[0] if self.place == "object" else self.packed
        return nn.functional.linear(x, codes.to(x) * self.scale)


def _held(place: str) -> Callable[[Any], Any]:
    def quantise(hf: Any) -> Any:
        owner = hf.get_submodule(NAME.rpartition(".")[0])
        owner.up_proj = Holding(owner.up_proj, place)
        return hf

    return quantise


def _subclass(hf: Any) -> Any:
    module = hf.get_submodule(NAME)
    module.weight = nn.Parameter(module.weight.detach().as_subclass(Codes), requires_grad=False)
    return hf


def _dynamic(hf: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(hf, {nn.Linear}, dtype=torch.qint8)


def _dtype(dtype: torch.dtype) -> Callable[[Any], Any]:
    def convert(hf: Any) -> Any:
        module = hf.get_submodule(NAME)
        module.weight = nn.Parameter(module.weight.detach().to(dtype), requires_grad=False)
        return hf

    return convert


def _sparse(hf: Any) -> Any:
    module = hf.get_submodule(NAME)
    module.weight = nn.Parameter(module.weight.detach().to_sparse(), requires_grad=False)
    return hf


KINDS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "buffer": _held("buffer"),
        "attribute": _held("attribute"),
        "object": _held("object"),
        "subclass": _subclass,
        "torch's dynamic quantisation": _dynamic,
        "int8": _dtype(torch.int8),
        "float8": _dtype(torch.float8_e4m3fn),
        "sparse": _sparse,
    }
)


@pytest.mark.parametrize("sides", ["both", "base", "aligned"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_plain_tensor_is_refused_by_name(kind: str, sides: str) -> None:
    pair = [tiny_model("llama", seed=seed) for seed in (0, 1)]
    for k, side in enumerate(("base", "aligned")):
        if sides in (side, "both"):
            pair[k] = KINDS[kind](pair[k])
    with pytest.raises(AlignmentError) as caught:
        alignment_vector(*pair, progress=False)
    assert "the weights of this model cannot be read" in str(caught.value)
    assert "_proj" in str(caught.value.found)


def test_a_wrapped_model_is_refused_too() -> None:
    hf = KINDS["buffer"](tiny_model("llama"))
    with pytest.raises(SteerError, match="cannot be read"):
        alignment_vector(Model(hf, tiny_tokenizer()), tiny_model("llama", seed=1), progress=False)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "qwen3_moe", "gemma3"])
def test_masks_and_positions_are_no_codes(family: str) -> None:
    base, aligned = tiny_model(family), tiny_model(family, seed=1)
    for hf in (base, aligned):
        hf.register_buffer("position_ids", torch.arange(16)[None])
        hf.register_buffer("causal", torch.ones(4, 4, dtype=torch.bool).tril())
    assert alignment_vector(base, aligned, progress=False).sites
