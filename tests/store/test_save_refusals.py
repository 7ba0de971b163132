"""What cannot be read back is not written."""

import os
from dataclasses import replace

import pytest
import torch

from steer.algebra import (
    Dense,
    Direction,
    DomainGate,
    LayerStats,
    LowRank,
    ModelInfo,
    Provenance,
    Residual,
    Tuning,
    Vector,
    Weight,
)
from steer.errors import VectorFileError
from tests.store.samples import MODEL, full, numbers


def deep(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


def with_arguments(**arguments: object) -> Vector:
    return replace(full(), provenance=Provenance(arguments=arguments))


def with_values(*values: float) -> Vector:
    return Vector({Weight("w"): Dense(torch.tensor(values))})


def with_model(v: torch.Tensor, layer: int = 0, **sizes: int) -> Vector:
    return Vector({Residual(layer): Direction(v)}, Provenance(model=replace(MODEL, **sizes)))


def with_gate(centroids: torch.Tensor, layer: int = 2) -> Vector:
    return replace(full(), gate=DomainGate(("medical",), centroids, layer))


REFUSED = {
    "nan": (lambda: with_values(1.0, float("nan")), "1 of 2 values of 'weight:w.W'"),
    "infinity": (lambda: with_values(float("-inf")), "NaN or infinity"),
    "nan in a factor": (
        lambda: Vector({Weight("w"): LowRank(numbers(2, 1), torch.full((1, 2), torch.nan))}),
        "weight:w.A",
    ),
    "no elements": (lambda: Vector.of({0: torch.ones(0)}), "at least one element"),
    "integer centroids": (lambda: with_gate(torch.ones(1, 4, dtype=torch.int64)), "torch.int64"),
    "too many dimensions": (lambda: Vector({Weight("w"): Dense(torch.ones([1] * 17))}), "17 items"),
    "norm beyond float64": (
        lambda: Vector.of({0: torch.full((4,), 1.7e308, dtype=torch.float64)}),
        "JSON",
    ),
    "width of the model": (lambda: with_model(numbers(3), d_model=4), "d_model"),
    "layer beyond the model": (lambda: with_model(numbers(4), n_layers=2, layer=2), "layer 2"),
    "width of the gate": (lambda: with_gate(numbers(1, 5)), "d_model"),
    "layer of the gate": (lambda: with_gate(numbers(1, 4), layer=8), "layer 8"),
    "tuned at another layer": (lambda: replace(full(), tuning=Tuning(3, 1.0)), "tuning.layer"),
    "tuned beyond the model": (lambda: replace(full(), tuning=Tuning(8, 1.0)), "layer 8"),
    "coefficient": (lambda: replace(full(), tuning=Tuning(2, float("inf"))), "JSON"),
    "score": (lambda: replace(full(), tuning=Tuning(2, 1.0, score=1.5)), "tuning.score"),
    "statistics of no site": (lambda: replace(full(), stats={4: LayerStats(1.0)}), "layer 4"),
    "statistics": (lambda: replace(full(), stats={2: LayerStats(-1.0)}), "residual_norm"),
    "cosine": (lambda: replace(full(), stats={2: LayerStats(1.0, 1.0, 1.1)}), "split_half"),
    "argument of another type": (lambda: with_arguments(at=torch.float16), "JSON"),
    "argument nan": (lambda: with_arguments(at=float("nan")), "JSON"),
    "argument with a number as key": (lambda: with_arguments(at={1: 2}), "not strings"),
    "argument with mixed keys": (lambda: with_arguments(at={1: 2, "a": 3}), "JSON"),
    "argument nested too deeply": (lambda: with_arguments(at=deep(40)), "too deeply"),
    "argument beyond 64 bits": (lambda: with_arguments(at=2**64), "65 bits"),
    "half a surrogate pair": (lambda: with_arguments(at="\ud800"), "surrogate"),
    "half a surrogate pair in a name": (
        lambda: Vector({Weight("\udfff"): Dense(numbers(2))}),
        "surrogate",
    ),
    "a header beyond 32 MiB": (lambda: with_arguments(at="x" * 2**25), "too long"),
    "no method": (lambda: replace(full(), provenance=Provenance(method="")), "provenance.method"),
    "pairs": (lambda: replace(full(), provenance=Provenance(pairs=-1)), "provenance.pairs"),
    "pairs as a Boolean": (lambda: replace(full(), provenance=Provenance(pairs=True)), "bool"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_back_is_not_written(case, tmp_path):
    build, message = REFUSED[case]
    vector = build()
    with pytest.raises(VectorFileError) as caught:
        vector.save(tmp_path / "v.safetensors")
    assert message in str(caught.value)
    assert str(tmp_path / "v.safetensors") in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_hand_made_vector_of_a_model_without_a_tokenizer_is_written(tmp_path):
    model = ModelInfo("LlamaForCausalLM", None, 8, 3, "c", "", "")
    vector = Vector({Residual(0): Direction(numbers(3))}, Provenance(model=model))
    vector.save(tmp_path / "v")
    assert Vector.load(tmp_path / "v").provenance.model == model


@pytest.mark.parametrize("where", ["directory", "missing/v.safetensors", "file/v.safetensors"])
def test_places_where_no_file_can_be_written(where, tmp_path):
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(VectorFileError, match=r"cannot be (accessed|written)"):
        full().save(tmp_path / where)
    assert sorted(os.listdir(tmp_path)) == ["directory", "file"]
