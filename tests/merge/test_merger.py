"""Merging in memory: always from the pristine base, and back to it bit for bit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from steer.algebra import Dense
from steer.errors import MergeError
from steer.merge import _parameters as written
from steer.merge import merger_of
from steer.merge._rounding import rounded
from tests.merge.parameters import LAMBDAS, Deltas, bits, deltas_for, same
from tests.tiny import tiny_model


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_ten_switches_and_leaving_give_the_base(family: str, dtype: torch.dtype) -> None:
    model = tiny_model(family, layers=2, dtype=dtype)
    base, merger = bits(model), merger_of(model)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    merger.merge("a", deltas_for(model, 0.1))
    for coefficient in LAMBDAS:
        deltas = deltas_for(model, coefficient)
        merger.merge("a", deltas)
        for name, term, c in deltas:
            expected = rounded(start[name], [(term, c)])
            assert torch.equal(model.get_parameter(name), expected)
    assert not same(bits(model), base)
    merger.leave("a")
    assert same(bits(model), base)
    assert merger.names == ()


def test_settings_add_up_and_leave_in_any_order() -> None:
    model = tiny_model("llama", dtype=torch.bfloat16)
    base, merger = bits(model), merger_of(model)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    first, second = deltas_for(model, 0.3), deltas_for(model, -0.7, seed=1)[:5]
    merger.merge("a", first)
    merger.merge("b", second)
    for (name, one, c), (_, two, d) in zip(first, second, strict=False):
        assert torch.equal(model.get_parameter(name), rounded(start[name], [(one, c), (two, d)]))
    merger.leave("a")
    assert merger.names == tuple(name for name, _, _ in second)
    for name, term, c in second:
        assert torch.equal(model.get_parameter(name), rounded(start[name], [(term, c)]))
    merger.leave("b")
    assert same(bits(model), base)


def test_names_objects_storage_and_gradients_stay() -> None:
    model = tiny_model("llama")
    before = {name: (p, p.data_ptr(), p.requires_grad) for name, p in model.named_parameters()}
    keys, attributes = list(model.state_dict()), dict(model.__dict__)
    merger_of(model).merge("a", deltas_for(model, 0.3))
    assert list(model.state_dict()) == keys
    assert dict(model.__dict__) == attributes
    for name, p in model.named_parameters():
        assert before[name][0] is p
        assert before[name][1:] == (p.data_ptr(), p.requires_grad)
        assert p.grad is None
    merger_of(model).leave("a")


def test_a_tied_weight_changes_at_both_uses() -> None:
    model = tiny_model("llama", tie_word_embeddings=True)
    embedding = model.get_input_embeddings().weight
    ids = torch.tensor([[3, 4, 5]])
    delta = Dense(torch.full_like(embedding, 0.1))
    merger_of(model).merge("a", [("model.embed_tokens.weight", delta, 1.0)])
    assert model.get_output_embeddings().weight is embedding
    with torch.no_grad():
        merged = model(ids).logits
        untied = tiny_model("llama", tie_word_embeddings=False)
        untied.load_state_dict(model.state_dict())
        torch.testing.assert_close(merged, untied(ids).logits)
    merger_of(model).leave("a")
    with pytest.raises(MergeError, match=r"lm_head.weight cannot be merged"):
        merger_of(model).merge("a", [("lm_head.weight", delta, 1.0)])


# -- errors ------------------------------------------------------------------------------------


def test_a_failed_entry_changes_nothing() -> None:
    model = tiny_model("llama", dtype=torch.float16)
    base, merger = bits(model), merger_of(model)
    deltas = deltas_for(model, 0.3)
    last, term, _ = deltas[-1]
    overflowing: Deltas = [*deltas[:-1], (last, term, 1e9)]
    with pytest.raises(MergeError, match=f"{last}: a merged weight is not finite"):
        merger.merge("a", overflowing)
    assert same(bits(model), base)
    assert merger.names == ()
    merger.merge("a", deltas)
    merged = bits(model)
    with pytest.raises(MergeError, match="not finite"):
        merger.merge("a", overflowing)
    with pytest.raises(MergeError, match="not finite"):
        merger.merge("b", overflowing)
    assert same(bits(model), merged)
    merger.leave("a")
    assert same(bits(model), base)


@pytest.mark.parametrize("when", ["enter", "update", "leave"])
def test_an_interruption_in_the_middle(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama", dtype=torch.bfloat16)
    base, merger = bits(model), merger_of(model)
    merger.merge("other", deltas_for(model, 0.2, seed=2))
    begun = bits(model)
    if when != "enter":
        merger.merge("a", deltas_for(model, 0.3))
    before = bits(model)
    fill = written.fill
    calls = iter(range(1000))

    def interrupted(*args: Any) -> None:
        if next(calls) == 7:
            raise KeyboardInterrupt
        fill(*args)

    actions: dict[str, Callable[[], None]] = {
        "enter": lambda: merger.merge("a", deltas_for(model, 0.3)),
        "update": lambda: merger.merge("a", deltas_for(model, 0.4)),
        "leave": lambda: merger.leave("a"),
    }
    with monkeypatch.context() as patch:
        patch.setattr(written, "fill", interrupted)
        with pytest.raises(KeyboardInterrupt):
            actions[when]()
    assert same(bits(model), begun if when == "leave" else before)
    merger.leave("a")
    merger.leave("other")
    assert same(bits(model), base)


def _unknown(model: nn.Module) -> Deltas:
    return [("model.nowhere", Dense(torch.ones(2)), 1.0)]


def _misshapen(model: nn.Module) -> Deltas:
    return [("model.norm.weight", Dense(torch.ones(2)), 1.0)]


def _infinite(model: nn.Module) -> Deltas:
    return [("model.norm.weight", Dense(torch.ones(32)), float("inf"))]


@pytest.mark.parametrize("wrong", [_unknown, _misshapen, _infinite])
def test_what_does_not_fit_is_refused_with_its_name(
    wrong: Callable[[nn.Module], Deltas],
) -> None:
    model = tiny_model("llama")
    base, deltas = bits(model), wrong(model)
    with pytest.raises(MergeError, match=deltas[0][0]):
        merger_of(model).merge("a", [*deltas_for(model, 0.3)[:2], *deltas])
    assert same(bits(model), base)


def test_quantised_and_offloaded_parameters_are_refused() -> None:
    model = nn.Module()
    model.register_parameter("q", nn.Parameter(torch.ones(4, dtype=torch.int8), False))
    model.register_parameter("m", nn.Parameter(torch.ones(4, device="meta")))
    for name, match in (("q", "int8"), ("m", "offloaded")):
        with pytest.raises(MergeError, match=match):
            merger_of(model).merge("a", [(name, Dense(torch.ones(4)), 1.0)])


def test_a_model_converted_meanwhile_is_merged_no_further_and_put_back() -> None:
    model = tiny_model("llama")
    expected = {
        k: v.clone() for k, v in tiny_model("llama").to(torch.bfloat16).state_dict().items()
    }
    merger_of(model).merge("a", deltas_for(model, 0.3))
    model.to(torch.bfloat16)
    with pytest.raises(MergeError, match="changed while it was merged"):
        merger_of(model).merge("a", deltas_for(model, 0.4))
    merger_of(model).leave("a")
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert merger_of(model).names == ()


def test_a_parameter_resized_meanwhile_does_not_keep_others_from_being_put_back() -> None:
    model = tiny_model("llama")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    deltas = deltas_for(model, 0.3)
    merger_of(model).merge("a", deltas)
    resized = deltas[0][0]
    owner, _, attribute = resized.rpartition(".")
    setattr(model.get_submodule(owner), attribute, torch.nn.Parameter(torch.zeros(3)))
    with pytest.raises(MergeError, match=resized):
        merger_of(model).leave("a")
    rest = {name: p for name, p in model.named_parameters() if name != resized}
    assert all(torch.equal(p, before[name]) for name, p in rest.items())


# -- memory, threads, autograd -----------------------------------------------------------------


class Odd(nn.Module):
    """Parameters with gaps, transposed, and two in one storage."""

    def __init__(self) -> None:
        super().__init__()
        whole = torch.arange(64.0).bfloat16()
        self.upper = nn.Parameter(whole[:32].view(4, 8))
        self.lower = nn.Parameter(whole[32:].view(4, 8))
        grid = torch.arange(64.0).bfloat16().view(8, 8)
        self.left, self.right = nn.Parameter(grid[:, :3]), nn.Parameter(grid[:, 3:])
        self.turned = nn.Parameter(torch.arange(12.0).bfloat16().view(3, 4).T)
        self.scalar = nn.Parameter(torch.tensor(3.0))
        self.empty = nn.Parameter(torch.empty(0, 3))


def test_strides_and_shared_storage_are_kept() -> None:
    model = Odd()
    base = bits(model)
    strides = [p.stride() for p in model.parameters()]
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    deltas = deltas_for(model, 0.3)
    merger_of(model).merge("a", deltas)
    for name, term, c in deltas:
        assert torch.equal(model.get_parameter(name), rounded(start[name], [(term, c)]))
    assert [p.stride() for p in model.parameters()] == strides
    merger_of(model).leave("a")
    assert same(bits(model), base)


def test_parameters_that_overlap_are_refused() -> None:
    model = nn.Module()
    whole = torch.arange(12.0)
    model.register_parameter("a", nn.Parameter(whole[:8]))
    model.register_parameter("b", nn.Parameter(whole[4:]))
    model.register_parameter("wide", nn.Parameter(torch.ones(1).expand(4)))
    one = Dense(torch.ones(8))
    with pytest.raises(MergeError, match="shares memory"):
        merger_of(model).merge("k", [("a", one, 1.0), ("b", one, 1.0)])
    with pytest.raises(MergeError, match="shares memory"):
        merger_of(model).merge("k", [("wide", Dense(torch.ones(4)), 1.0)])
    merger_of(model).merge("k", [("a", one, 1.0)])
    with pytest.raises(MergeError, match="shares memory"):
        merger_of(model).merge("l", [("b", one, 1.0)])
    merger_of(model).leave("k")
    assert torch.equal(whole, torch.arange(12.0))


def test_a_graph_from_before_does_not_survive_silently() -> None:
    model = nn.Linear(3, 3)
    loss = model(model(torch.ones(1, 3))).sum()
    merger_of(model).merge("a", [("weight", Dense(torch.ones(3, 3)), 1.0)])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    merger_of(model).leave("a")


@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize("born", [False, True])
def test_inference_mode(outer: bool, born: bool) -> None:
    with torch.inference_mode(born):
        model = nn.Linear(3, 3)
    base = bits(model)
    with torch.inference_mode(outer):
        merger_of(model).merge("a", [("weight", Dense(torch.ones(3, 3)), 0.5)])
        assert not same(bits(model), base)
        merger_of(model).leave("a")
    assert same(bits(model), base)


def test_a_model_that_is_gone_takes_its_merger_along() -> None:
    import gc
    import weakref

    model = nn.Linear(3, 3)
    merger = merger_of(model)
    assert merger_of(model) is merger
    merger.merge("a", [("weight", Dense(torch.ones(3, 3)), 0.5)])
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    merger.leave("a")
