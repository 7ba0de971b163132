"""What users ask of `generate` and of coefficients is taken as they say it, or refused."""

import fractions

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

import steer
from steer.errors import CompositionError, TextError
from steer.gate import DomainGate
from tests.tiny import tiny_model, tiny_tokenizer

ASKED = "the sea is wide"


@pytest.fixture(scope="module")
def lm():
    model = tiny_model("llama")
    model.generation_config.eos_token_id = None
    return steer.Model(model, tiny_tokenizer())


def tokens(lm, text):
    return len(lm.tokenizer(text, add_special_tokens=False)["input_ids"])


def test_a_generation_config_is_taken_whole(lm):
    short = GenerationConfig(max_new_tokens=3, pad_token_id=0)
    assert tokens(lm, lm.generate(ASKED, generation_config=short)) <= 3
    assert tokens(lm, lm.generate(ASKED)) > 3


def test_several_answers_to_one_text_need_a_list(lm):
    with pytest.raises(TextError, match="cannot hold several"):
        lm.generate(ASKED, num_return_sequences=2, num_beams=2)
    assert len(lm.generate([ASKED], num_return_sequences=2, num_beams=2)) == 2


def test_messages_may_be_mappings(lm):
    talk = [{"role": "user", "content": ASKED}]
    assert lm.generate([talk], max_new_tokens=4) == lm.generate([ASKED], max_new_tokens=4)
    with pytest.raises(TextError, match="is no prompt"):
        lm.generate(talk)


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), fractions.Fraction(1, 2)])
def test_a_coefficient_is_any_real_number(number):
    knobs = steer.compose(a=steer.Vector.of({0: torch.ones(4)}))
    assert knobs(number).coefficients.tolist() == knobs({"a": number}).coefficients.tolist()
    assert float(knobs(number).coefficients) == 0.5


def test_a_coefficient_beyond_all_numbers_is_refused():
    knobs = steer.compose(a=steer.Vector.of({0: torch.ones(4)}))
    with pytest.raises(CompositionError):
        knobs(10**400)


def test_what_is_no_gate_is_refused():
    vector = steer.Vector.of({0: torch.ones(4)})
    with pytest.raises(CompositionError, match="no gate"):
        steer.compose(gate=vector)
    with pytest.raises(CompositionError, match="no tensor"):
        DomainGate(("a",), [[1.0, 2.0]], 0)
    with pytest.raises(CompositionError, match="share"):
        DomainGate(("a",), torch.ones(1, 2), 0, accuracy=7.0)
