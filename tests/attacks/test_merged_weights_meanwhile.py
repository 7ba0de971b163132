"""Saving, loading and training weights while a setting is merged into them."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from safetensors.torch import save_model
from torch import Tensor

from steer import Dense, Model, Vector, Weight, alignment_vector
from steer.errors import MergeError, SteeringError
from tests.conformance import cases
from tests.conformance.cases import Snapshot, padded, same_bits
from tests.tiny import tiny_model, tiny_tokenizer
from tests.weights import everywhere

BATCH = padded(cases.sequences(), "right")
NAME = "model.layers.1.mlp.up_proj.weight"


def model(**options: Any) -> Model:
    return Model(tiny_model("llama", **options), tiny_tokenizer())


def logits(lm: Model) -> Tensor:
    with torch.no_grad():
        return lm.hf_model(**BATCH).logits  # type: ignore[no-any-return]


def dense() -> Vector:
    return Vector({Weight(NAME): Dense(torch.ones(64, 32) / 8)})


def mixed(lm: Model) -> Vector:
    """One matrix that is merged, residual sites, and everything else by hook."""
    rest = everywhere(lm.hf_model, keep=lambda name: name != NAME)
    return Vector({**rest.terms, **cases.vector(1).terms, **dense().terms})


SETTINGS: Mapping[str, tuple[Callable[[Model], Vector], Any]] = MappingProxyType(
    {
        "merged": (lambda lm: everywhere(lm.hf_model), "merge"),
        "mixed": (mixed, "auto"),
        "tied": (lambda lm: everywhere(lm.hf_model, keep=lambda n: "embed" in n), "merge"),
    }
)
WRITING: Mapping[str, Callable[[Any, Path], object]] = MappingProxyType(
    {
        "save_pretrained": lambda hf, path: hf.save_pretrained(path),
        "push_to_hub": lambda hf, path: hf.push_to_hub("nobody/nothing"),
        "state_dict": lambda hf, path: hf.state_dict(),
        "a part's state_dict": lambda hf, path: hf.get_submodule("model").state_dict(),
        "safetensors": lambda hf, path: save_model(hf, str(path)),
        "a vector": lambda hf, path: alignment_vector(tiny_model("llama"), hf, progress=False),
    }
)


# -- saving and loading ---------------------------------------------------------------------------


@pytest.mark.parametrize("way", WRITING)
@pytest.mark.parametrize("setting", SETTINGS)
def test_half_steered_weights_are_not_written(setting: str, way: str, tmp_path: Path) -> None:
    make, weights = SETTINGS[setting]
    lm = model(tie_word_embeddings=setting == "tied")
    before, path = Snapshot(lm.hf_model), tmp_path / "out"
    with lm.steered(make(lm), 0.5, weights=weights):
        with pytest.raises(SteeringError, match="cannot be saved while a setting is merged"):
            WRITING[way](lm.hf_model, path)
        assert not path.exists()
    before.check(lm.hf_model)
    lm.hf_model.save_pretrained(path)
    again = type(lm.hf_model).from_pretrained(path)
    for name, value in again.state_dict().items():
        assert same_bits(value, before.state[name]), name


@pytest.mark.parametrize("weights", ["hook", "auto"])
def test_what_is_steered_by_hook_alone_is_written_as_it_is(weights: Any, tmp_path: Path) -> None:
    lm = model()
    before = Snapshot(lm.hf_model)
    v = Vector({**everywhere(lm.hf_model).terms, **cases.vector(1).terms})
    with lm.steered(v, 0.5, weights=weights):
        lm.hf_model.save_pretrained(tmp_path)
    again = type(lm.hf_model).from_pretrained(tmp_path)
    for name, value in again.state_dict().items():
        assert same_bits(value, before.state[name]), name


@pytest.mark.parametrize("first", [0, 1])
def test_guards_of_two_settings_go_in_any_order(first: int) -> None:
    lm = model()
    before = Snapshot(lm.hf_model)
    handles = [lm.steered(v, 0.5, weights="merge").attach() for v in (dense(), dense())]
    handles.pop(first).remove()
    with pytest.raises(SteeringError, match="cannot be saved"):
        lm.hf_model.state_dict()
    handles.pop().remove()
    before.check(lm.hf_model)


def test_weights_are_not_loaded_over_merged_ones() -> None:
    lm = model()
    state = lm.hf_model.state_dict()
    other = {name: value + 1 for name, value in state.items()}
    before = Snapshot(lm.hf_model)
    with lm.steered(dense(), 0.5):
        steered = logits(lm)
        for part in ("", "model", "model.layers.1", "model.layers.1.mlp.up_proj"):
            inner = {k.removeprefix(f"{part}."): v for k, v in other.items() if part in k}
            with pytest.raises(SteeringError, match="cannot be loaded while a setting is merged"):
                lm.hf_model.get_submodule(part).load_state_dict(inner)
        elsewhere = "model.layers.2."  # nothing is merged there
        inner = {k.removeprefix(elsewhere): v for k, v in state.items() if elsewhere in k}
        lm.hf_model.get_submodule("model.layers.2").load_state_dict(inner)
        assert same_bits(logits(lm), steered)
    before.check(lm.hf_model)


# -- training -------------------------------------------------------------------------------------


def trained(hf: Any) -> None:
    optimizer = torch.optim.SGD(hf.parameters(), lr=0.1)
    hf(**BATCH).logits.square().mean().backward()
    optimizer.step()
    hf.zero_grad()


def through_data(hf: Any) -> None:
    for parameter in hf.parameters():
        parameter.data -= 0.1


def one_number(hf: Any) -> None:
    with torch.no_grad():
        hf.get_parameter(NAME)[3, 5] += 1


def detour(hf: Any) -> None:
    hf.half().float()


def detour_to_the_same_address(hf: Any) -> None:
    """An allocator hands out freed memory again, often within a few tries."""
    before = hf.get_parameter(NAME).data_ptr()
    for _ in range(64):
        if hf.half().float().get_parameter(NAME).data_ptr() == before:
            return


CHANGES: Mapping[str, Callable[[Any], None]] = MappingProxyType(
    {
        "trained": trained,
        "through .data": through_data,
        "one number": one_number,
        "by way of float16": detour,
        "by way of float16, to the same address": detour_to_the_same_address,
    }
)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("setting", ["merged", "mixed"])
def test_training_while_merged_is_not_lost_without_a_word(setting: str, change: str) -> None:
    make, weights = SETTINGS[setting]
    lm = model()
    names = {s.name for s in dense().sites if isinstance(s, Weight)}
    base = {name: p.detach().clone() for name, p in lm.hf_model.named_parameters()}
    vector = make(lm)
    if weights == "merge":
        names = {s.name for s in vector.sites if isinstance(s, Weight)}
    handle = lm.steered(vector, 0.5, weights=weights).attach()
    CHANGES[change](lm.hf_model)
    if change != "through .data":  # what goes around torch's count is seen by a sample, later
        with pytest.raises(MergeError, match="changed while it was merged"):
            logits(lm)
    with pytest.raises(MergeError, match="changed while it was merged"):
        handle.update(0.25)
    assert handle.composition.coefficients.tolist() == [[0.5]]
    with pytest.raises(MergeError, match="changed while it was merged"):
        lm.steered(dense(), 0.5, weights="merge").attach()
    with pytest.warns(UserWarning, match="written to while they were merged"):
        handle.remove()
    assert lm.steering == ()
    for name in names:
        assert same_bits(lm.hf_model.get_parameter(name), base[name]), name
    with lm.steered(vector, 0.5, weights=weights):  # all is well again
        logits(lm)


def test_training_beside_the_merged_weights_is_kept() -> None:
    lm = model()
    base = {name: p.detach().clone() for name, p in lm.hf_model.named_parameters()}
    lm.hf_model.get_parameter(NAME).requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with lm.steered(dense(), 0.5) as handle:
            for _ in range(2):
                trained(lm.hf_model)
            handle.update(0.25)
            trained(lm.hf_model)
    for name, p in lm.hf_model.named_parameters():
        assert torch.equal(p, base[name]) == (name == NAME), name


def test_training_by_hook_trains_the_parameters_themselves() -> None:
    lm = model()
    base = {name: p.detach().clone() for name, p in lm.hf_model.named_parameters()}
    with lm.steered(everywhere(lm.hf_model), 0.5, weights="hook"):
        trained(lm.hf_model)
    assert all(not torch.equal(p, base[name]) for name, p in lm.hf_model.named_parameters())


def test_writing_the_same_numbers_and_moving_are_no_change() -> None:
    lm = model()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with lm.steered(dense(), 0.5) as handle:
            steered = logits(lm)
            with torch.no_grad():
                parameter = lm.hf_model.get_parameter(NAME)
                parameter.copy_(parameter.clone())
                parameter.data = parameter.data.clone()
            assert same_bits(logits(lm), steered)
            handle.update(0.25)
