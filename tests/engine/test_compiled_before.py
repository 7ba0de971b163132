"""A model that was given to torch.compile(fullgraph=True) before it was given to this library."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor

from steer import Model, Pair, Pairs, alignment_vector, mean_difference, record
from steer.network._architecture.probe import uncompiled
from tests.compiler import fresh_compiler  # noqa: F401  # pytest finds it by its name
from tests.conformance import cases
from tests.conformance.cases import PROMPTS, Snapshot, close, far, padded
from tests.tiny import tiny_model, tiny_tokenizer
from tests.weights import everywhere

BATCH = padded(cases.sequences(), "right")
OPTIONS: Any = {"fullgraph": True, "backend": "eager"}


def _wrapped(hf: Any) -> Any:
    return torch.compile(hf, **OPTIONS)


def _in_place(hf: Any) -> Any:
    hf.compile(**OPTIONS)
    return hf


def _forward(hf: Any) -> Any:
    hf.forward = torch.compile(hf.forward, **OPTIONS)
    return hf


def _body(hf: Any) -> Any:
    hf.model.compile(**OPTIONS)
    return hf


def _block(hf: Any) -> Any:
    hf.model.layers[1].compile(**OPTIONS)
    return hf


WAYS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "torch.compile": _wrapped,
        "compile": _in_place,
        "forward": _forward,
        "body": _body,
        "block": _block,
    }
)
ways = pytest.mark.parametrize("way", WAYS)


def logits(hf: Any) -> Tensor:
    with torch.no_grad():
        return hf(**BATCH, use_cache=False).logits  # type: ignore[no-any-return]


@ways
def test_it_is_verified_uncompiled_and_steered(way: str) -> None:
    plain = Model(tiny_model("llama", layers=2), tiny_tokenizer())
    v = cases.vector(0, 1)
    hf = tiny_model("llama", layers=2)
    lm = Model(WAYS[way](hf), tiny_tokenizer())
    assert lm.architecture.names == plain.architecture.names
    assert lm.info == plain.info
    before, unsteered = Snapshot(hf), logits(plain.hf_model)
    with plain.steered(v, 1.0):
        expected = logits(plain.hf_model)
    with lm.steered(v, 1.0):
        close(logits(lm.hf_model), expected)
    far(expected, unsteered)
    before.check(hf)


@ways
def test_weights_have_the_names_that_they_have_in_the_model(way: str) -> None:
    plain = Model(tiny_model("llama", layers=2), tiny_tokenizer())
    v = everywhere(plain.hf_model)
    lm = Model(WAYS[way](tiny_model("llama", layers=2)), tiny_tokenizer())
    aligned = WAYS[way](tiny_model("llama", layers=2, seed=1))
    difference = alignment_vector(lm, aligned, progress=False)
    assert {str(s) for s in difference.sites} == {str(s) for s in v.sites}
    with plain.steered(v, 0.5):
        expected = plain.logits(PROMPTS[:1], ["No."])[0]
    with lm.steered(v, 0.5):
        close(lm.logits(PROMPTS[:1], ["No."])[0], expected)


@ways
def test_what_the_library_runs_itself_is_as_without_compiling(way: str) -> None:
    plain = Model(tiny_model("llama", layers=2), tiny_tokenizer())
    lm = Model(WAYS[way](tiny_model("llama", layers=2)), tiny_tokenizer())
    pairs = Pairs([Pair(p, "Yes, it is.", "No.") for p in PROMPTS])
    for ours, theirs in zip(lm.activations(PROMPTS), plain.activations(PROMPTS), strict=True):
        close(ours, theirs)
    recorded = record(lm, pairs, at="response_mean", progress=False)
    expected = record(plain, pairs, at="response_mean", progress=False)
    assert recorded.path == expected.path
    for layer in range(2):
        found = mean_difference(recorded).direction(layer)
        close(found, mean_difference(expected).direction(layer))


def test_two_that_read_a_model_at_once_leave_the_compiler_as_it_was() -> None:
    frames: list[object] = []

    def backend(graph: Any, inputs: object) -> Any:
        frames.append(graph)
        return graph.forward

    first, second = uncompiled(), uncompiled()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    doubled = torch.compile(lambda x: x * 2, backend=backend)
    doubled(torch.ones(2))
    assert not frames, "the second still reads"
    second.__exit__(None, None, None)
    torch.compile(lambda x: x * 3, backend=backend)(torch.ones(2))
    assert len(frames) == 1
