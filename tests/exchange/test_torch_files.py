"""`.pt` files: the layers that they mean, checked on a model, and tensors that are not plain."""

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

import steer
from steer.algebra import Provenance, Residual, Tuning, Vector
from steer.errors import ArgumentError, CapabilityError, VectorFileError
from steer.exchange import read, write
from tests.tiny import tiny_model, tiny_tokenizer

IDS = torch.arange(3, 13)[None]


def test_rows_of_a_persona_stack_are_hidden_states(tmp_path: Path) -> None:
    """Row j + 1 is what a hook reads after block j, but for the last, which is normed."""
    model = tiny_model("llama", layers=4)
    outputs: list[torch.Tensor] = []
    for block in model.model.layers:
        block.register_forward_hook(lambda module, given, out: outputs.append(out[0, -1]))
    with torch.no_grad():
        hidden = model(IDS, output_hidden_states=True).hidden_states
    torch.save(torch.stack([h[0, -1] for h in hidden]), tmp_path / "trait.pt")
    found = read(tmp_path / "trait.pt", "persona")
    assert found.layers == (0, 1, 2)
    for layer in found.layers:
        assert torch.equal(found.direction(layer), outputs[layer])
    assert not torch.allclose(hidden[-1][0, -1], outputs[3])


def test_a_persona_stack_has_the_layers_of_the_model(tmp_path: Path) -> None:
    vector = Vector.of({0: torch.ones(4), 2: torch.full((4,), 2.0)})
    with pytest.raises(ArgumentError, match="how many layers"):
        write(vector, tmp_path / "v.pt", "persona")
    with pytest.raises(CapabilityError, match="cannot carry this"):
        write(vector, tmp_path / "v.pt", "persona", n_layers=3)
    write(vector, tmp_path / "v.pt", "persona", n_layers=4)
    rows = torch.load(tmp_path / "v.pt", weights_only=True)
    assert rows[:, 0].tolist() == [0.0, 1.0, 0.0, 2.0, 0.0]
    for n_layers in (0, 10**13):
        with pytest.raises(ArgumentError, match="n_layers must be"):
            write(vector, tmp_path / "v.pt", "persona", n_layers=n_layers)
    torch.save(torch.ones(2, 3, 4), tmp_path / "v.pt")
    with pytest.raises(VectorFileError, match="this is no file"):
        read(tmp_path / "v.pt", "persona")


def test_a_bare_tensor_is_read_at_the_layer_that_is_named(tmp_path: Path) -> None:
    v = torch.randn(4, dtype=torch.float64)
    torch.save(v, tmp_path / "layer_14.pt")
    with pytest.raises(ArgumentError, match="needs an option"):
        read(tmp_path / "layer_14.pt", "tensor")
    assert torch.equal(read(tmp_path / "layer_14.pt", "tensor", layer=14).direction(14), v)
    torch.save(torch.nn.Parameter(v[None]), tmp_path / "row.pt")
    found = read(tmp_path / "row.pt", "tensor", layer=0).direction(0)
    assert torch.equal(found, v)
    assert not found.requires_grad


def test_an_ending_that_several_formats_have_is_asked_about(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="does not tell the format") as refused:
        write(Vector.of({1: torch.ones(4)}), tmp_path / "v.pt")
    assert "lm-eval" in str(refused.value)


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(1).expand(2**40),
        torch.eye(4).to_sparse(),
        torch.ones(4, dtype=torch.int64),
        torch.tensor([1.0, float("nan")]),
        torch.empty(4, device="meta"),
        torch.ones(2, 4),
        torch.ones(()),
        {"vector": torch.ones(4)},
        [torch.ones(4)],
    ],
    ids=str,
)
def test_what_is_no_plain_direction_is_refused(value: Any, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "v.pt")
    with pytest.raises(VectorFileError):
        read(tmp_path / "v.pt", "tensor", layer=1)


def test_a_file_that_unpacks_to_more_than_memory_is_refused(tmp_path: Path) -> None:
    torch.save(torch.ones(4), tmp_path / "v.pt")
    with zipfile.ZipFile(tmp_path / "v.pt", "a") as records:
        records.writestr("bomb", bytes(9))
        records.filelist[-1].file_size = 2**31  # as a record of zeros has, in a few megabytes
    with pytest.raises(VectorFileError, match="bytes when unpacked"):
        read(tmp_path / "v.pt", "tensor", layer=1)


def steered(path: Path, **changed: Any) -> Path:
    entry = {"action": "add", "steering_coefficient": 2.0, "steering_vector": torch.ones(4)}
    torch.save({changed.pop("hookpoint", "layers.3"): {**entry, **changed}}, path)
    return path


def test_an_entry_of_lm_eval_is_read(tmp_path: Path) -> None:
    found = read(steered(tmp_path / "v.pt", hookpoint="h.3"), "lm-eval")
    assert found.layers == (3,)
    assert found.tuning is not None
    assert found.tuning.coefficient == 2.0


@pytest.mark.parametrize(
    "changed",
    [
        {"action": "clamp"},
        {"head_index": 1},
        {"bias": torch.ones(4)},
        {"hookpoint": "layers.3.mlp"},
        {"steering_vector": "none"},
        {"steering_vector": torch.ones(0)},
        {"steering_coefficient": float("nan")},
        {"steering_coefficient": float("inf")},
    ],
    ids=str,
)
def test_an_entry_that_means_something_else_is_refused(
    changed: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(VectorFileError):
        read(steered(tmp_path / "v.pt", **changed), "lm-eval")


@pytest.mark.parametrize("names", [("layers.3", "h.3"), ("layers.3", "layers.03"), ()])
def test_entries_of_one_layer_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    entry = {"action": "add", "steering_coefficient": 2.0, "steering_vector": torch.ones(4)}
    torch.save(dict.fromkeys(names, entry), tmp_path / "v.pt")
    with pytest.raises(VectorFileError):
        read(tmp_path / "v.pt", "lm-eval")


@pytest.mark.filterwarnings("ignore:.*")  # lm-eval's own
@pytest.mark.parametrize(("family", "blocks"), [("llama", "layers"), ("gpt2", "h")])
def test_lm_eval_computes_what_steering_computes(family: str, blocks: str, tmp_path: Path) -> None:
    hf_steered = pytest.importorskip("lm_eval.models.hf_steered")
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    torch.manual_seed(0)
    vector = Vector.of({1: torch.randn(32), 2: torch.randn(32)})
    vector = Vector(vector.terms, Provenance(), tuning=Tuning(None, 0.5))
    write(vector, tmp_path / "v.pt", "lm-eval", blocks=blocks)
    judge = hf_steered.SteeredModel(
        pretrained=model, tokenizer=tokenizer, steer_path=str(tmp_path / "v.pt"), device="cpu"
    )
    lm = steer.Model(model, tokenizer)
    with lm.steered(vector, 0.5), torch.no_grad():
        wanted = model(IDS).logits
    found = judge._model_call(IDS)
    torch.testing.assert_close(found, wanted)
    assert Residual(2) in vector.sites
    assert not torch.allclose(found, model(IDS).logits, atol=1e-2)
