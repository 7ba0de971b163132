"""What `generate` and `steered` refuse before anything runs."""

import math

import numpy as np
import pytest
import torch

import steer
from steer.algebra import LowRank, Weight
from steer.errors import ArgumentError, CompositionError, RecordingError, TextError
from tests.tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def lm():
    return steer.Model(tiny_model("llama"), tiny_tokenizer())


@pytest.mark.parametrize(
    ("prompts", "error"), [([1], TextError), (["the sea", None], TextError), (None, ArgumentError)]
)
def test_what_is_no_prompt_is_named(lm, prompts, error):
    with pytest.raises(error):
        lm.generate(prompts)


def test_at_least_one_prompt_is_run_at_once(lm):
    for size in (0, -1, "2", 1.5):
        with pytest.raises(ArgumentError, match=f"batch_size={size!r}"):
            lm.generate(["the sea"], batch_size=size)


@pytest.mark.parametrize("value", [1e300, [1e39], {"vector": -1e300}, [[1e300]]])
def test_a_coefficient_beyond_float32_is_refused(lm, value):
    with pytest.raises(CompositionError, match="cannot be used"):
        lm.steered(steer.Vector.of({1: torch.ones(lm.d_model)}), value)


VECTORS = {"a": steer.Vector.of({1: torch.ones(32)}), "b": steer.Vector.of({2: torch.ones(32)})}
PARTS = {name: steer.Part(vector) for name, vector in VECTORS.items()}


@pytest.mark.parametrize(
    ("coefficients", "per_row"),
    [
        (torch.ones(2), False),
        (torch.ones(1, 1, 2), False),
        (torch.ones(1, 3), False),
        (torch.ones(3, 2), False),
        (torch.ones(0, 2), True),
        (torch.tensor([[1.0, float("nan")]]), False),
        (torch.tensor([[1.0, 0.0], [float("inf"), 0.0]]), True),
        ([[1.0, 1.0]], False),
    ],
)
def test_a_composition_checks_what_it_is_made_of(coefficients, per_row):
    with pytest.raises(CompositionError, match="coefficients that cannot be used"):
        steer.Composition(PARTS, coefficients, per_row=per_row)
    steer.Composition(PARTS, torch.ones(1, 2), per_row=per_row)
    steer.Composition(PARTS, torch.ones(3, 2), per_row=True)


@pytest.mark.parametrize("layers", [[1.5], [1.0], ["1"], 1])
def test_layers_are_integers(lm, layers):
    with pytest.raises(ArgumentError, match="layers must be"):
        lm.activations(["the sea"], layers=layers)


@pytest.mark.parametrize("layers", [[-2], [99], [4], [0, 4], []])
def test_activations_of_a_layer_that_is_not_there_are_refused(lm, layers):
    with pytest.raises(RecordingError, match=r"no such layer[^Z]*-1 \(the embedding\) to 3"):
        lm.activations(["the sea"], layers=layers)
    (row,) = lm.activations(["the sea"], layers=[3, torch.tensor(-1)])
    (whole,) = lm.activations(["the sea"], layers=range(-1, 4))
    assert torch.equal(row, whole[[4, 0]])


def test_an_operator_of_another_range_is_taken_with_the_new_coefficients(lm):
    knobs = steer.compose(VECTORS)
    cut = lm.steered(knobs(-0.5), operator="ablate", a=1.0).composition
    assert cut.coefficients.tolist() == [[1.0, 0.0]]
    assert {part.operator for part in cut.parts.values()} == {"ablate"}
    ablating = cut(0.5)
    assert lm.steered(ablating, 3.0, operator="add").composition.coefficients[0, 0] == 3.0
    with pytest.raises(CompositionError, match="out of range"):
        lm.steered(knobs(-0.5), operator="ablate")
    with pytest.raises(CompositionError, match="given twice"):
        lm.steered(knobs, 0.5, a=1.0)


def test_no_coefficients_are_not_taken_for_zero(lm):
    knobs = steer.compose(VECTORS)
    with pytest.raises(CompositionError, match="no coefficients"):
        knobs()
    with lm.steered(knobs, 0.5) as handle:
        with pytest.raises(CompositionError, match="no coefficients"):
            handle.update()
        assert handle.composition.coefficients.tolist() == [[0.5, 0.5]]
    assert knobs({}).coefficients.tolist() == [[0.0, 0.0]]
    assert lm.steered(knobs(0.5)).composition.coefficients.tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("scope", ["all", "response"])
@pytest.mark.parametrize("kind", ["residual", "weight"])
def test_a_float64_model_takes_coefficients_as_they_were_written(kind, scope):
    """0.1 in float32 is off by 1e-8 of itself."""
    lm = steer.Model(tiny_model("llama", dtype=torch.float64), tiny_tokenizer())
    v = torch.linspace(-1, 1, 32, dtype=torch.float64)
    if kind == "residual":
        vector = steer.Vector.of({3: v})
    else:
        eye = torch.eye(32, dtype=torch.float64)[:, :1]
        name = "model.layers.3.mlp.down_proj.weight"
        A = torch.ones(1, lm.hf_model.get_parameter(name).shape[1], dtype=torch.float64)
        vector = steer.Vector({Weight(name): LowRank(eye, A)})

    def moved(number):
        with lm.steered(vector, number, scope=scope):
            return lm.activations(["the sea"], ["is old"], layers=[3])[0][:, -1]

    plain = moved(0.0)
    by_one, by_a_tenth = moved(1.0) - plain, moved(0.1) - plain
    assert torch.allclose(by_a_tenth, 0.1 * by_one, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(by_a_tenth, 0.1 * (1 + 1e-8) * by_one, rtol=1e-12, atol=1e-14)


def test_a_composition_keeps_its_own_coefficients():
    given = torch.full((1, 2), 0.5)
    made = steer.Composition(PARTS, given)
    given.fill_(2.0)
    assert made.coefficients.tolist() == [[0.5, 0.5]]
    assert steer.compose(VECTORS)(a=0.3).coefficients.tolist() == [[0.3, 0.0]]


def test_a_strength_of_one_to_within_float32_is_in_range(lm):
    lm.steered(VECTORS["a"], math.nextafter(1.0, 2.0), operator="ablate")


def test_one_text_is_no_list_of_letters(lm):
    for ask in (
        lambda: lm.activations("Is it safe?"),
        lambda: lm.activations(["Is it safe?"], "yes"),
        lambda: lm.activations(["Is it safe?"], layers=1),
        lambda: lm.logprobs("abc", "def"),
        lambda: lm.logprobs(["abc"], "d"),
        lambda: lm.logits("abc", "def"),
    ):
        with pytest.raises(ArgumentError, match="must be a sequence"):
            ask()
    with pytest.raises(TextError, match="differ in number"):
        lm.activations(["Is it safe?"], [])
    both = lm.logprobs(iter(["a", "b"]), iter(["yes", "no"]))
    assert all(map(torch.equal, both, lm.logprobs(["a", "b"], ["yes", "no"])))


@pytest.mark.parametrize(
    "odd",
    [
        b"ab",
        torch.tensor(1j),
        torch.tensor(True),
        torch.tensor([1.0, 2.0]).to_sparse(),
        torch.empty(1, 2, device="meta"),
    ],
    ids=["bytes", "complex", "truth", "sparse", "meta"],
)
def test_what_holds_no_real_numbers_is_no_coefficient(odd):
    with pytest.raises(CompositionError, match="cannot be used"):
        steer.compose(VECTORS)(odd)


def test_every_integer_is_a_layer_and_nothing_else(lm):
    whole = lm.activations(["a"], ["b"], layers=[1])[0]
    assert torch.equal(lm.activations(["a"], ["b"], layers=torch.tensor([1]))[0], whole)
    for odd in (torch.tensor([1.9]), [True], [torch.tensor(True)]):
        with pytest.raises(ArgumentError, match="layers must be integers"):
            lm.activations(["a"], ["b"], layers=odd)
    pair = steer.Pairs.of([steer.Pair("a", "b", "c")])
    found = steer.record(lm, pair, layers=torch.tensor([1, 2]), progress=False)
    assert found.layers == (1, 2)


def test_numbers_of_numpy_are_coefficients():
    knobs = steer.compose(VECTORS)
    assert knobs(np.array([0.1, 0.2])).coefficients.tolist() == [[0.1, 0.2]]
    assert knobs(np.array([[0.1, 0.2]] * 3)).per_row
    with pytest.raises(CompositionError, match="cannot be used"):
        knobs(np.array(["a", "b"]))


def test_only_names_and_vectors_are_composed(lm):
    for what in (VECTORS["a"], [VECTORS["a"]]):
        with pytest.raises(CompositionError, match="composed by name"):
            steer.compose(what)
