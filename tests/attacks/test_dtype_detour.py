"""A model that is converted while it is steered, and back: nothing bound keeps the rounding."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor

from steer import Composition, Model, Vector
from tests.conformance import cases
from tests.conformance.cases import close, far, padded, same_bits
from tests.tiny import tiny_model, tiny_tokenizer

BATCH = padded(cases.sequences(), "right")
LENGTHS = [12, 5, 17, 8]
ROWS: Sequence[Mapping[str, float]] = [{"medical": 1.0}, {"legal": 0.5}, {}, {"financial": 0.8}]
SETTINGS: Mapping[str, Callable[[Model], Composition]] = MappingProxyType(
    {
        "add": lambda lm: cases.knobs()(1.0),
        "ablate": lambda lm: cases.knobs(["ablate"] * 3)(0.7),
        "rows, scopes, gate": lambda lm: cases.knobs(*_MIXED, gate=_gate())(ROWS),
        "weights": lambda lm: cases.mixed(lm, "weights")(0.5),
        "weights, rows, scopes, gate": lambda lm: cases.mixed(lm, "both", *_MIXED, gate=_gate())(
            ROWS
        ),
    }
)
_MIXED = (["add", "ablate", "add"], ["response", "all", "prompt"])
DETOURS: Mapping[str, tuple[torch.dtype, ...]] = MappingProxyType(
    {
        "float16": (torch.float16, torch.float32),
        "bfloat16": (torch.bfloat16, torch.float32),
        "both": (torch.float16, torch.bfloat16, torch.float32),
    }
)


def _gate() -> Any:
    return cases.gate(layer=0, margin=2.0)


def logits(lm: Model, per_row: bool = False) -> Tensor:
    lengths = {"prompt_lengths": LENGTHS} if per_row else {}
    with torch.no_grad():
        return lm.hf_model(**BATCH, **lengths).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("detour", DETOURS)
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_after_a_detour_steering_equals_attaching_anew(
    family: str, setting: str, detour: str
) -> None:
    lm = Model(tiny_model(family), tiny_tokenizer())
    knobs = SETTINGS[setting](lm)
    with lm.steered(knobs):
        for dtype in DETOURS[detour]:
            lm.hf_model.to(dtype)
            found = logits(lm, knobs.per_row)
    far(found, logits(lm))
    with lm.steered(knobs):
        assert same_bits(logits(lm, knobs.per_row), found)


def test_a_vector_beyond_float16_is_itself_again_in_float32() -> None:
    lm = Model(tiny_model("llama"), tiny_tokenizer())
    v = Vector.of({1: torch.full((cases.WIDTH,), 3e3)})
    with lm.steered(v, 100.0):
        expected = lm.activations(["Sell it?"], layers=[1])[0]
        lm.hf_model.half()
        lm.activations(["Sell it?"], layers=[1])
        lm.hf_model.float()
        found = lm.activations(["Sell it?"], layers=[1])[0]
    assert bool(found.isfinite().all())
    close(found, expected)


@pytest.mark.parametrize("per_row", [False, True])
def test_an_update_during_a_detour_is_not_rounded_either(per_row: bool) -> None:
    lm = Model(tiny_model("llama"), tiny_tokenizer())
    knobs = cases.mixed(lm, "both")
    first, second = ([{}] * 4, list(ROWS)) if per_row else (0.3, 0.7)
    with lm.steered(knobs, first) as handle:
        lm.hf_model.half()
        logits(lm, per_row)
        handle.update(second)
        logits(lm, per_row)
        lm.hf_model.float()
        found = logits(lm, per_row)
    with lm.steered(knobs, second):
        assert same_bits(logits(lm, per_row), found)
