"""torch.compile: coefficients change without recompiling; late hooks are not silently ignored."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from steer import Model
from steer.engine import injector_of
from tests.compiler import Counting, fresh_compiler  # noqa: F401  # pytest finds it by its name
from tests.conformance import cases
from tests.conformance.cases import Snapshot, close, far, padded
from tests.tiny import tiny_model, tiny_tokenizer

BATCH = padded(cases.sequences(), "right")
LENGTHS = {"prompt_lengths": [12, 5, 17, 8]}
KNOBS = cases.knobs(["add", "ablate", "add"], layers=[(0,)] * 3)
V, W = cases.vector(0), cases.vector(0, seed=1)


def model(dtype: torch.dtype = torch.float32) -> Model:
    return Model(tiny_model("llama", layers=1, dtype=dtype), tiny_tokenizer())


def logits(hf: Any, **kwargs: Any) -> Tensor:
    with torch.no_grad():
        return hf(**BATCH, use_cache=False, **kwargs).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_coefficients_change_without_recompiling_and_without_graph_breaks(
    dtype: torch.dtype,
) -> None:
    lm, backend = model(dtype), Counting()
    with lm.steered(KNOBS, 0.0) as handle:
        plain = logits(lm.hf_model)
        compiled = torch.compile(lm.hf_model, backend=backend, fullgraph=True)
        assert torch.equal(logits(compiled), plain)
        graphs = backend.graphs
        for c in (1.0, 0.25, {"medical": 1.0}, 0.0):
            handle.update(c)
            found, eager = logits(compiled), logits(lm.hf_model)
            close(found, eager, 1e-5 if dtype == torch.float32 else 2**-6)
            if c != 0.0:
                far(found, plain)
        assert backend.graphs == graphs


@pytest.mark.parametrize("first", ["eager", "compiled"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_weight_sites_change_without_recompiling_and_without_graph_breaks(
    dtype: torch.dtype, first: str
) -> None:
    lm, backend = model(dtype), Counting()
    plain = logits(lm.hf_model)
    kind = "both" if first == "eager" else "weights"  # residual steps are cast at their first run
    with lm.steered(cases.mixed(lm, kind, layers=[(0,)] * 3), 0.0) as handle:
        if first == "eager":
            logits(lm.hf_model)
        compiled = torch.compile(lm.hf_model, backend=backend, fullgraph=True)
        assert torch.equal(logits(compiled), plain)
        graphs = backend.graphs
        for c in (1.0, 0.25, {"medical": 1.0}, 0.0):
            handle.update(c)
            found = logits(compiled)
            close(found, logits(lm.hf_model), 1e-5 if dtype == torch.float32 else 2**-6)
            assert torch.equal(found, plain) == (c == 0.0)
        assert backend.graphs == graphs


def test_attaching_after_compiling_is_respected_and_warned_of_once() -> None:
    lm = model()
    compiled = torch.compile(lm.hf_model, backend="eager")
    plain = logits(compiled)
    with pytest.warns(UserWarning, match=r"torch\.compile ran before"):
        outer = lm.steered(V, 1.0).attach()
    outer.remove()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outer.attach()  # the compiled code is gone, so there is nothing to warn of
    only_outer = logits(compiled)
    far(only_outer, plain)
    with pytest.warns(UserWarning, match=r"torch\.compile ran before"):
        inner = lm.steered(W, 1.0).attach()
    far(logits(compiled), only_outer)
    inner.remove()
    close(logits(compiled), only_outer)
    outer.remove()
    close(logits(compiled), plain)


def test_nothing_stays_when_the_warning_is_an_error() -> None:
    lm = model()
    compiled = torch.compile(lm.hf_model, backend="eager")
    plain, before = logits(compiled), Snapshot(lm.hf_model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        handle = lm.steered(V, 1.0)
        with pytest.raises(UserWarning, match=r"torch\.compile ran before"):
            handle.attach()
    assert not handle.active
    assert injector_of(lm.architecture).stack == ()
    before.check(lm.hf_model)
    assert torch.equal(logits(lm.hf_model), plain)


@pytest.mark.parametrize("kind", ["residual", *cases.KINDS])
def test_rows_scopes_and_gates_are_right_under_compilation(kind: str) -> None:
    lm = model()
    settings = (
        ["add", "ablate", "add"],
        ["response", "all[3:]", "last_prompt"],
        [(0,)] * 3,
        cases.gate(layer=-1, margin=2.0),
    )
    knobs = cases.knobs(*settings) if kind == "residual" else cases.mixed(lm, kind, *settings)
    rows = [{"medical": 1.0}, {"legal": 1.0}, {}, {"medical": 0.5, "financial": 0.8}]
    plain = logits(lm.hf_model)
    with lm.steered(knobs, rows):
        steered = logits(lm.hf_model, **LENGTHS)
        compiled = torch.compile(lm.hf_model, backend="eager")
        close(logits(compiled, **LENGTHS), steered)
    far(steered, plain)


def test_without_compilation_there_is_no_warning() -> None:
    lm = model()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with lm.steered(KNOBS, 1.0):
            logits(lm.hf_model)
