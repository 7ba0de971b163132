"""Merging in memory: always from the pristine base, and back to it bit for bit."""

import logging
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from steer.algebra import Dense, LowRank, Term
from steer.errors import BusyModelError, MergeError
from steer.merge import _merger as merger_module
from steer.merge import _pristine as pristine_module
from steer.merge import merger_of
from steer.merge._rounding import rounded
from steer.network import Checkpoint
from tests.tiny import tiny_model

Deltas = list[tuple[str, Term, float]]
LAMBDAS = (0.3, -1.0, 0.5, 1.0, 0.7, -0.2, 0.0, 1e-3, 0.9, 0.31)


def bits(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter's bytes."""
    return {
        name: p.detach().clone().contiguous().reshape(-1).view(torch.uint8)
        for name, p in model.named_parameters()
    }


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def deltas_for(model: nn.Module, coefficient: float, *, seed: int = 0) -> Deltas:
    """A low-rank term for every matrix and a dense one for all else."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.05

    found: Deltas = []
    for name, p in model.named_parameters():
        term: Term = Dense(noise(*p.shape))
        if p.ndim == 2:
            term = LowRank(noise(p.shape[0], 3), noise(3, p.shape[1]))
        found.append((name, term, coefficient))
    return found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_ten_switches_and_leaving_give_the_base(family: str, dtype: torch.dtype) -> None:
    model = tiny_model(family, layers=2, dtype=dtype)
    base, merger = bits(model), merger_of(model)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    merger.enter("a", deltas_for(model, 0.1))
    for coefficient in LAMBDAS:
        deltas = deltas_for(model, coefficient)
        merger.update("a", deltas)
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
    merger.enter("a", first)
    merger.enter("b", second)
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
    merger_of(model).enter("a", deltas_for(model, 0.3))
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
    merger_of(model).enter("a", [("model.embed_tokens.weight", delta, 1.0)])
    assert model.get_output_embeddings().weight is embedding
    with torch.no_grad():
        merged = model(ids).logits
        untied = tiny_model("llama", tie_word_embeddings=False)
        untied.load_state_dict(model.state_dict())
        torch.testing.assert_close(merged, untied(ids).logits)
    merger_of(model).leave("a")
    with pytest.raises(MergeError, match=r"lm_head.weight is tied to model.embed_tokens.weight"):
        merger_of(model).enter("a", [("lm_head.weight", delta, 1.0)])


# -- where the pristine weights are ------------------------------------------------------------


def loaded(folder: Path, family: str = "llama", **options: Any) -> Any:
    tiny_model(family, dtype=torch.bfloat16, **options).save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_checkpoint_serves_if_its_bits_are_the_models(tmp_path: Path, family: str) -> None:
    model = loaded(tmp_path, family)
    base, merger = bits(model), merger_of(model)
    merger.enter("a", deltas_for(model, 0.3))
    assert merger.disk_bytes == 0
    merger.leave("a")
    assert same(bits(model), base)


def test_what_differs_from_the_checkpoint_is_kept_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = loaded(tmp_path / "model")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    name = "model.layers.1.mlp.up_proj.weight"
    with torch.no_grad():
        model.get_parameter(name)[3, 4] += 1.0
    base, merger = bits(model), merger_of(model)
    with caplog.at_level(logging.INFO, logger="steer.merge"):
        merger.enter("a", deltas_for(model, 0.3))
    size = model.get_parameter(name).numel() * 2
    assert size <= merger.disk_bytes < size + 64
    assert f"temporary file of {merger.disk_bytes} bytes" in caplog.text
    assert os.listdir(tmp_path / "temporary") == []  # it has no name: no crash leaves it behind
    merger.leave("a")
    assert merger.disk_bytes == 0
    assert same(bits(model), base)


def test_another_dtype_than_the_checkpoints_is_kept_in_a_file(tmp_path: Path) -> None:
    tiny_model("llama", dtype=torch.float32).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    base, merger = bits(model), merger_of(model)
    merger.enter("a", deltas_for(model, 0.3))
    assert merger.disk_bytes >= sum(p.numel() * 2 for p in model.parameters())
    merger.leave("a")
    assert same(bits(model), base)


def test_a_checkpoint_written_to_in_place_is_noticed(tmp_path: Path) -> None:
    model = loaded(tmp_path)
    merger_of(model).enter("a", deltas_for(model, 0.3))
    with open(tmp_path / "model.safetensors", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(MergeError, match="written to"):
        merger_of(model).update("a", deltas_for(model, 0.4))
    with pytest.raises(MergeError, match="written to"):
        merger_of(model).leave("a")
    assert merger_of(model).names == tuple(name for name, _ in model.named_parameters())


def test_a_lost_shard_keeps_no_other_parameter_from_being_put_back(tmp_path: Path) -> None:
    tiny_model("llama", dtype=torch.bfloat16).save_pretrained(tmp_path, max_shard_size="40KB")
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    spilled = "model.norm.weight"
    with torch.no_grad():
        model.get_parameter(spilled).add_(1.0)
    base, merger = bits(model), merger_of(model)
    files = Checkpoint.open(tmp_path).files
    shard, lost = next((f, names) for f, names in files.items() if spilled not in names)
    merger.enter("a", deltas_for(model, 0.3))
    os.utime(tmp_path / shard, ns=(0, 0))  # as if it had been written to
    with pytest.raises(MergeError, match="written to"):
        merger.leave("a")
    assert set(merger.names) == set(lost)
    left = bits(model)
    assert all(torch.equal(left[name], base[name]) for name in base if name not in lost)
    with pytest.raises(MergeError, match="written to"):
        merger.enter("b", [(name, Dense(torch.ones(32)), 1.0) for name in lost if "norm" in name])
    rest = [delta for delta in deltas_for(model, 0.3) if delta[0] not in lost]
    merger.enter("b", rest)
    merger.leave("b")
    assert all(torch.equal(bits(model)[name], base[name]) for name in base if name not in lost)


def test_settings_that_exceed_the_dtype_alone_keep_no_other_from_being_put_back() -> None:
    model = tiny_model("llama", dtype=torch.float16)
    base, merger = bits(model), merger_of(model)
    first, name = "model.embed_tokens.weight", "model.norm.weight"
    merger.enter("down", [(name, Dense(torch.full((32,), -6e4)), 1.0)])
    merger.enter("up", [(name, Dense(torch.full((32,), 6e4)), 1.0)])
    merger.enter("down too", [(name, Dense(torch.full((32,), -6e4)), 1.0)])
    noise = Dense(torch.ones(128, 32))
    merger.update("up", [(name, Dense(torch.full((32,), 6e4)), 1.0), (first, noise, 1.0)])
    with pytest.raises(MergeError, match=f"{name}: a merged weight is not finite"):
        merger.leave("up")
    assert torch.equal(bits(model)[first], base[first])
    merger.leave("down")
    merger.leave("down too")
    assert same(bits(model), base)
    assert merger.names == ()


def test_a_checkpoint_replaced_or_removed_does_no_harm(tmp_path: Path) -> None:
    model = loaded(tmp_path)
    base = bits(model)
    merger_of(model).enter("a", deltas_for(model, 0.3))
    (tmp_path / "other").write_bytes(b"another file")
    os.replace(tmp_path / "other", tmp_path / "model.safetensors")
    merger_of(model).update("a", deltas_for(model, 0.4))
    shutil.rmtree(tmp_path)
    merger_of(model).leave("a")
    assert same(bits(model), base)


def test_a_full_disk_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    base = bits(model)
    usage = shutil.disk_usage("/")._replace(free=100)
    monkeypatch.setattr(pristine_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(MergeError, match="cannot be kept on disk"):
        merger_of(model).enter("a", deltas_for(model, 0.3))
    assert same(bits(model), base)
    assert merger_of(model).names == ()


# -- errors ------------------------------------------------------------------------------------


def test_a_failed_entry_changes_nothing() -> None:
    model = tiny_model("llama", dtype=torch.float16)
    base, merger = bits(model), merger_of(model)
    deltas = deltas_for(model, 0.3)
    last, term, _ = deltas[-1]
    overflowing: Deltas = [*deltas[:-1], (last, term, 1e9)]
    with pytest.raises(MergeError, match=f"{last}: a merged weight is not finite"):
        merger.enter("a", overflowing)
    assert same(bits(model), base)
    assert merger.names == ()
    merger.enter("a", deltas)
    merged = bits(model)
    with pytest.raises(MergeError, match="not finite"):
        merger.update("a", overflowing)
    with pytest.raises(MergeError, match="not finite"):
        merger.enter("b", overflowing)
    assert same(bits(model), merged)
    merger.leave("a")
    assert same(bits(model), base)


@pytest.mark.parametrize("when", ["enter", "update", "leave"])
def test_an_interruption_in_the_middle(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama", dtype=torch.bfloat16)
    base, merger = bits(model), merger_of(model)
    merger.enter("other", deltas_for(model, 0.2, seed=2))
    begun = bits(model)
    if when != "enter":
        merger.enter("a", deltas_for(model, 0.3))
    before = bits(model)
    fill = merger_module._fill
    calls = iter(range(1000))

    def interrupted(*args: Any) -> None:
        if next(calls) == 7:
            raise KeyboardInterrupt
        fill(*args)

    actions: dict[str, Callable[[], None]] = {
        "enter": lambda: merger.enter("a", deltas_for(model, 0.3)),
        "update": lambda: merger.update("a", deltas_for(model, 0.4)),
        "leave": lambda: merger.leave("a"),
    }
    with monkeypatch.context() as patch:
        patch.setattr(merger_module, "_fill", interrupted)
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
        merger_of(model).enter("a", [*deltas_for(model, 0.3)[:2], *deltas])
    assert same(bits(model), base)


def test_keys_are_used_once_and_known() -> None:
    model = tiny_model("llama")
    merger = merger_of(model)
    merger.enter("a", deltas_for(model, 0.3))
    with pytest.raises(MergeError, match="merged already"):
        merger.enter("a", [])
    with pytest.raises(MergeError, match="no such setting"):
        merger.update("b", [])
    merger.leave("b")
    merger.leave("a")
    merger.leave("a")


def test_quantised_and_offloaded_parameters_are_refused() -> None:
    model = nn.Module()
    model.register_parameter("q", nn.Parameter(torch.ones(4, dtype=torch.int8), False))
    model.register_parameter("m", nn.Parameter(torch.ones(4, device="meta")))
    for name, match in (("q", "int8"), ("m", "offloaded")):
        with pytest.raises(MergeError, match=match):
            merger_of(model).enter("a", [(name, Dense(torch.ones(4)), 1.0)])


def test_a_model_converted_meanwhile_is_merged_no_further_and_put_back() -> None:
    model = tiny_model("llama")
    expected = {
        k: v.clone() for k, v in tiny_model("llama").to(torch.bfloat16).state_dict().items()
    }
    merger_of(model).enter("a", deltas_for(model, 0.3))
    model.to(torch.bfloat16)
    with pytest.raises(MergeError, match="changed while it was merged"):
        merger_of(model).update("a", deltas_for(model, 0.4))
    merger_of(model).leave("a")
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert merger_of(model).names == ()


def test_a_parameter_resized_meanwhile_does_not_keep_others_from_being_put_back() -> None:
    model = tiny_model("llama")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    deltas = deltas_for(model, 0.3)
    merger_of(model).enter("a", deltas)
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
    merger_of(model).enter("a", deltas)
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
        merger_of(model).enter("k", [("a", one, 1.0), ("b", one, 1.0)])
    with pytest.raises(MergeError, match="shares memory"):
        merger_of(model).enter("k", [("wide", Dense(torch.ones(4)), 1.0)])
    merger_of(model).enter("k", [("a", one, 1.0)])
    with pytest.raises(MergeError, match="shares memory"):
        merger_of(model).enter("l", [("b", one, 1.0)])
    merger_of(model).leave("k")
    assert torch.equal(whole, torch.arange(12.0))


def test_a_graph_from_before_does_not_survive_silently() -> None:
    model = nn.Linear(3, 3)
    loss = model(model(torch.ones(1, 3))).sum()
    merger_of(model).enter("a", [("weight", Dense(torch.ones(3, 3)), 1.0)])
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
        merger_of(model).enter("a", [("weight", Dense(torch.ones(3, 3)), 0.5)])
        assert not same(bits(model), base)
        merger_of(model).leave("a")
    assert same(bits(model), base)


def test_another_thread_is_refused() -> None:
    model, other = tiny_model("llama"), tiny_model("llama")
    merger = merger_of(model)
    merger.enter("a", deltas_for(model, 0.3))
    caught: list[BaseException] = []

    def work() -> None:
        for action in (merger.enter, merger.update):
            try:
                action("a", deltas_for(model, 0.3))
            except BusyModelError as error:
                caught.append(error)
        merger_of(other).enter("a", deltas_for(other, 0.3))
        merger_of(other).leave("a")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(caught) == 2
    merger.leave("a")


def test_a_model_that_is_gone_takes_its_merger_along() -> None:
    import gc
    import weakref

    model = nn.Linear(3, 3)
    merger = merger_of(model)
    assert merger_of(model) is merger
    merger.enter("a", [("weight", Dense(torch.ones(3, 3)), 0.5)])
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    merger.leave("a")
