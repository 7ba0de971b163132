"""What users ask of `generate` and of coefficients is taken as they say it, or refused."""

import fractions
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GenerationConfig
from transformers.generation import utils as generation_utils

import steer
from steer.algebra import DomainGate
from steer.errors import ArgumentError, CompositionError, TextError
from steer.network import encode_prompt
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
    with pytest.raises(TextError, match="is not a prompt"):
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
    with pytest.raises(CompositionError, match="centroids"):
        DomainGate(("a",), [[1.0, 2.0]], 0)
    with pytest.raises(ArgumentError, match="accuracy"):
        DomainGate(("a",), torch.ones(1, 2), 0, accuracy=7.0)


@pytest.fixture(scope="module")
def learned():
    """A model of 24 learned positions, as GPT-2 has them, that never ends an answer."""
    model = tiny_model("gpt2", n_positions=24)
    model.generation_config.eos_token_id = None
    return steer.Model(model, tiny_tokenizer())


WAYS = {
    "option": lambda n, width: {"max_new_tokens": n},
    "whole length": lambda n, width: {"max_length": width + n},
    "config": lambda n, width: {"generation_config": GenerationConfig(max_new_tokens=n)},
}


@pytest.mark.parametrize("way", WAYS)
def test_new_tokens_without_a_position_are_refused_before_anything_runs(learned, way):
    width = len(encode_prompt(learned.tokenizer, ASKED))
    fits = 24 - width + 1  # the last token is written and never read
    assert tokens(learned, learned.generate(ASKED, **WAYS[way](fits, width))) > 0
    with pytest.raises(TextError, match=f"and up to {fits + 1} new ones") as caught:
        learned.generate(["the sea", ASKED], **WAYS[way](fits + 1, width))
    assert f"max_new_tokens={fits} or less" in str(caught.value)


def test_new_tokens_that_the_models_own_config_asks_for_are_counted(learned):
    config = learned.hf_model.generation_config
    config.max_new_tokens = 64
    try:
        with pytest.raises(TextError, match="and up to 64 new ones"):
            learned.generate(ASKED, generation_config=GenerationConfig(do_sample=False))
        learned.generate(ASKED, max_new_tokens=2)
    finally:
        config.max_new_tokens = None
    with pytest.raises(TextError, match="and up to 64 new ones"):
        learned.generate(ASKED)
    with pytest.warns(UserWarning, match="max_length"):  # transformers minds the positions then
        answer = learned.generate(ASKED, generation_config=GenerationConfig(do_sample=False))
    assert tokens(learned, answer) > 0


def test_a_generation_config_is_not_mixed_with_options_and_left_as_it_is(lm, caplog):
    given = GenerationConfig(max_new_tokens=3)
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        generation_utils.logger.warning_once.cache_clear()
        lm.generate(ASKED, generation_config=given)
    finally:
        logger.removeHandler(caplog.handler)
    assert not [record for record in caplog.records if "deprecated" in record.getMessage()]
    assert given.pad_token_id is None


def test_a_model_without_a_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    with pytest.raises(TextError, match="no tokenizer that can be read"):
        steer.Model.from_pretrained(tmp_path)


def test_stop_strings_need_no_tokenizer_and_end_every_row_where_it_stops(lm):
    """The model never ends an answer by itself: other rows go on until all have stopped."""
    asked = [ASKED, "the wind", "a"]
    whole = lm.generate(asked, max_new_tokens=24)
    stops = [whole[0][3:5], whole[1][8:10]]
    found = lm.generate(asked, max_new_tokens=24, stop_strings=stops)
    for prompt, text, full in zip(asked, found, whole, strict=True):
        assert full.startswith(text)
        assert text == lm.generate(prompt, max_new_tokens=24, stop_strings=stops)
        end = min((full.find(s) + len(s) for s in stops if s in full), default=len(full))
        assert text.startswith(full[:end])
        ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
        without_last = lm.tokenizer.decode(ids[:-1])
        assert text == full or not any(stop in without_last for stop in stops)
    config = GenerationConfig(max_new_tokens=24, stop_strings=stops)
    assert lm.generate(asked, generation_config=config) == found
    assert lm.generate(asked, max_new_tokens=24, stop_strings=stops, batch_size=2) == found
    assert lm.generate(ASKED, stop_strings=stops[0]).startswith(whole[0][:5])


@pytest.mark.parametrize("stops", [[], [3]])
def test_what_is_no_stop_string_is_refused_by_name(lm, stops):
    with pytest.raises(TextError, match="cannot stop at these strings"):
        lm.generate(ASKED, stop_strings=stops)


def test_a_tokenizer_of_whole_words_stops_at_a_token_and_not_at_a_string():
    toy = steer.demo.load_model()
    with pytest.raises(TextError, match="eos_token_id"):
        toy.generate("I have gout. Can you help?", stop_strings=["is"])
    end = toy.tokenizer("is", add_special_tokens=False)["input_ids"]
    answer = toy.generate("I have gout. Can you help?", max_new_tokens=40, eos_token_id=end)
    assert "is" not in answer.split()
