"""A keyword that nothing takes is refused by its name, with what was probably meant."""

import pytest
import torch

import steer
from steer.errors import CompositionError, TextError
from steer.model import stream
from tests.tiny import tiny_model, tiny_tokenizer

VECTOR = steer.Vector.of({1: torch.ones(32), 2: torch.ones(32)})
MEANT = {
    "layers": ([2], r"vector\[16\]"),
    "layer": (2, r"vector\[16\]"),
    "position": (-1, "scope"),
    "alpha": (0.5, "second argument"),
    "coefficient": (0.5, "second argument"),
    "max_new_tokens": (5, r"lm\.generate"),
    "medcal": (0.5, "write medical"),
    "zebra": (0.5, "spelling"),
}


@pytest.fixture(scope="module")
def lm():
    return steer.Model(tiny_model("llama"), tiny_tokenizer())


@pytest.mark.parametrize("name", sorted(MEANT))
@pytest.mark.parametrize("coefficient", [(1.0,), ()])
def test_steered_names_the_keyword_and_what_was_meant(lm, name, coefficient):
    value, meant = MEANT[name]
    with pytest.raises(CompositionError, match=rf"{name}=[\s\S]*to do: .*{meant}"):
        lm.steered({"medical": VECTOR}, *coefficient, **{name: value})


@pytest.mark.parametrize("name", sorted(MEANT))
def test_so_do_update_and_a_composition(lm, name):
    value, meant = MEANT[name]
    knobs = steer.compose(medical=VECTOR)
    for call in (knobs, lm.steered(knobs, 0.5).update):
        for coefficient in ((), (1.0,)):
            with pytest.raises(CompositionError, match=rf"{name}=[\s\S]*to do: .*{meant}"):
                call(*coefficient, **{name: value})


def test_a_misspelt_argument_is_corrected(lm):
    with pytest.raises(CompositionError, match=r"opperator='ablate'[\s\S]*write operator"):
        lm.steered(VECTOR, 1.0, opperator="ablate")


def test_a_domain_by_keyword_and_a_coefficient_are_given_twice(lm):
    with pytest.raises(CompositionError, match="given twice"):
        lm.steered({"medical": VECTOR}, 1.0, medical=1.0)


def test_compose_takes_vectors_and_a_gate():
    for name, value, meant in (
        ("layers", [2], r"vector\[16\]"),
        ("scope", "response", r"Part\(vector"),
        ("operator", "ablate", r"Part\(vector"),
        ("coefficient", 0.5, "second argument"),
    ):
        with pytest.raises(CompositionError, match=rf"{name}=[\s\S]*to do: .*{meant}"):
            steer.compose(medical=VECTOR, **{name: value})
    assert steer.compose(layers=VECTOR).domains == ("layers",)  # a domain may be called so


@pytest.mark.parametrize("name", ["max_new_tokens", "max_length"])
@pytest.mark.parametrize("value", ["5", 2.5, True, [5]])
def test_a_number_of_tokens_is_a_whole_number(lm, name, value):
    with pytest.raises(TextError, match=f"{name} must be an integer"):
        lm.generate("the sea", **{name: value})


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("max_tokens", 5, "max_new_tokens"),
        ("temprature", 0.5, "temperature"),
        ("layers", [2], r"vector\[16\]"),
        ("coefficient", 0.5, r"lm\.steered"),
        ("zebra", 1, "leave it out"),
    ],
)
def test_generate_names_an_option_that_it_does_not_take(lm, name, value, meant):
    for prompts in ("the sea", ["the sea"]):
        with pytest.raises(TextError, match=rf"{name}=[\s\S]*to do: .*{meant}"):
            lm.generate(prompts, **{name: value})
    with pytest.raises(TextError, match=rf"{name}="):
        stream(lm, "the sea", lambda _: None, **{name: value})
