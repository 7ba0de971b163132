"""Compiled models: other coefficients and rows neither recompile nor break a graph."""

from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import _dynamo as dynamo
from transformers import CompileConfig

from steer import Composition, Model
from tests.compiler import Counting, fresh_compiler  # noqa: F401  # pytest finds it by its name
from tests.conformance import cases
from tests.conformance.cases import close, far, padded
from tests.tiny import tiny_model, tiny_tokenizer

PROMPTS = padded(cases.sequences([(12, 0), (5, 0), (17, 0), (8, 0)]), "left")
TEXTS = padded(cases.sequences(), "right")
LENGTHS = torch.tensor([12, 5, 17, 8])
ONE = (1.0, {"legal": -1.0, "financial": 0.3}, 0.0)
ROWS: Any = (
    [{"medical": 1.0}, {"legal": 1.0}, {}, {"medical": 0.5, "financial": 0.8}],
    [{}, {"medical": 0.2, "legal": 1.0}, {"financial": 1.0}, {}],
    [{}] * 4,
)
SCOPED: Any = {"scopes": ["response", "all", "last_prompt"]}
MIXED: Any = {"operators": ["add", "ablate", "add"], **SCOPED}
SETTINGS: Mapping[str, tuple[dict[str, Any], Any]] = MappingProxyType(
    {
        "one setting": ({}, ONE),
        "rows": ({}, ROWS),
        "scopes": (SCOPED, ONE),
        "rows, scopes, operators": (MIXED, ROWS),
    }
)
GREEDY: dict[str, Any] = {
    "max_new_tokens": 4,
    "min_new_tokens": 4,
    "do_sample": False,
    "pad_token_id": 0,
    "return_dict_in_generate": True,
    "output_logits": True,
}


def model(dtype: torch.dtype = torch.float32) -> Model:
    return Model(tiny_model("llama", layers=1, dtype=dtype), tiny_tokenizer())


def generate(hf: Any, **options: Any) -> Tensor:
    batch = {name: PROMPTS[name] for name in ("input_ids", "attention_mask")}
    return torch.stack(hf.generate(**batch, **GREEDY, **options).logits, dim=1)


def forward(hf: Any, **options: Any) -> Tensor:
    with torch.no_grad():
        return hf(**TEXTS, use_cache=False, **options).logits  # type: ignore[no-any-return]


def knobs(lm: Model, setting: str) -> Composition:
    """Residual and weight sites, in three domains."""
    return cases.mixed(lm, "both", layers=[(0,)] * 3, **SETTINGS[setting][0])


def static(compiler: Any, **options: Any) -> dict[str, Any]:
    """Options with which `generate` compiles the model itself, as it does on an accelerator."""
    config = CompileConfig(backend=compiler, mode=None, **options)
    config._compile_all_devices = True  # type: ignore[assignment]
    return {"cache_implementation": "static", "compile_config": config}


@pytest.mark.parametrize("way", ["forward", "dynamic cache", "static cache"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_other_coefficients_neither_recompile_nor_break_a_graph(setting: str, way: str) -> None:
    lm, backend = model(), Counting()
    made, values = knobs(lm, setting), SETTINGS[setting][1]
    placed = setting not in ("one setting", "rows")
    lengths = {"prompt_lengths": LENGTHS} if placed and way == "forward" else {}
    cache = static(backend, fullgraph=True) if way == "static cache" else {}
    expected = []
    run = forward if way == "forward" else generate
    for value in values:
        with lm.steered(made, value):
            expected.append(run(lm.hf_model, **lengths))
    for one, other in pairwise(expected):
        far(one, other)
    if way != "static cache":
        lm.hf_model.compile(backend=backend, fullgraph=True)  # a break would be an error
    with lm.steered(made, values[0]) as handle:
        close(run(lm.hf_model, **lengths, **cache), expected[0])
        graphs = backend.graphs
        assert graphs
        with dynamo.config.patch(error_on_recompile=True):
            for value, right in zip(values[1:], expected[1:], strict=True):
                handle.update(value)
                close(run(lm.hf_model, **lengths, **cache), right)
    assert backend.graphs == graphs


def test_half_precision_does_not_recompile_either() -> None:
    lm, backend = model(torch.bfloat16), Counting()
    with lm.steered(knobs(lm, "rows"), ROWS[0]) as handle:
        lm.hf_model.compile(backend=backend, fullgraph=True)
        first = generate(lm.hf_model)
        with dynamo.config.patch(error_on_recompile=True):
            handle.update(ROWS[1])
            far(generate(lm.hf_model), first)


@pytest.mark.parametrize("setting", ["rows", "gate"])
def test_generate_that_compiles_by_itself_never_ignores_steering(setting: str) -> None:
    """Steering begins after the model was compiled, changes, and ends."""
    lm, cache = model(), static("aot_eager")
    gate = cases.gate(layer=0, margin=1.0) if setting == "gate" else None
    made = cases.knobs(**MIXED, layers=[(0,)] * 3, gate=gate)(ROWS[0])
    plain = generate(lm.hf_model)
    with lm.steered(made):
        expected = [generate(lm.hf_model)]
    with lm.steered(made(ROWS[1])):
        expected.append(generate(lm.hf_model))
    close(generate(lm.hf_model, **cache), plain)
    with pytest.warns(UserWarning, match=r"torch\.compile ran before"):
        handle = lm.steered(made).attach()
    close(generate(lm.hf_model, **cache), expected[0])
    handle.update(ROWS[1])
    close(generate(lm.hf_model, **cache), expected[1])
    handle.remove()
    close(generate(lm.hf_model, **cache), plain)
    for steered in expected:
        far(steered, plain)
