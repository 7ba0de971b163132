"""The helper that every other test builds its models with."""

import pytest
import torch

from tests.tiny import BOS_ID, FAMILIES, plain_tokenizer, tiny_model, tiny_tokenizer, tiny_vlm


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_are_honoured(family: str) -> None:
    model = tiny_model(family, layers=2, width=48, vocab=120)
    text = model.config.get_text_config()
    assert (text.num_hidden_layers, text.hidden_size, text.vocab_size) == (2, 48, 120)
    assert model.get_input_embeddings().weight.shape == (120, 48)
    assert sum(parameter.numel() for parameter in model.parameters()) < 300_000
    assert not model.training


def test_models_depend_on_the_seed_alone() -> None:
    before = torch.get_rng_state()
    one, torch_seeded = tiny_model("gpt2", seed=1), torch.manual_seed(7)
    again, other = tiny_model("gpt2", seed=1), tiny_model("gpt2", seed=2)
    torch_seeded.set_state(before)
    same = [torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True)]
    assert all(same)
    differ = [
        not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)
    ]
    assert all(differ)


def test_building_leaves_the_random_state() -> None:
    before = torch.get_rng_state()
    tiny_model("llama")
    tiny_vlm()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_bias_is_zero_and_no_norm_is_the_identity(family: str) -> None:
    for name, parameter in tiny_model(family).named_parameters():
        assert parameter.std() > 0.05, name


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValueError, match="n_embed"):
        tiny_model("gpt2", n_embed=16)


def test_vlm_has_more_vision_blocks_than_text_blocks() -> None:
    model = tiny_vlm()
    assert len(model.model.visual.blocks) > len(model.model.language_model.layers)


def test_tokenizer_has_a_bos_a_template_and_no_pad() -> None:
    tokenizer = tiny_tokenizer()
    assert len(tokenizer) == 128
    assert tokenizer.pad_token is None
    assert tokenizer.chat_template
    assert plain_tokenizer().chat_template is None
    ids = tokenizer("What is the dose?\nAsk.").input_ids
    assert ids[0] == BOS_ID
    assert tokenizer.decode(ids, skip_special_tokens=True) == "What is the dose?\nAsk."
    assert (
        tokenizer("What is the dose?").input_ids == tiny_tokenizer()("What is the dose?").input_ids
    )


def test_template_puts_one_bos_in_front() -> None:
    chat = [{"role": "user", "content": "the dose"}]
    text = tiny_tokenizer().apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<s><|user|>the dose</s><|assistant|>"


def test_tokens_depend_on_what_stands_before_them() -> None:
    tokenizer = tiny_tokenizer()
    alone = tokenizer("the dose", add_special_tokens=False).input_ids
    after = tokenizer("of the dose", add_special_tokens=False).input_ids
    assert after[-len(alone) :] != alone


def test_too_small_a_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        tiny_tokenizer(64)
