from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from steer.errors import TextError
from steer.network import encode_exchange, encode_in_user_slot, encode_prompt, render
from steer.network._chat import template_of
from steer.pairs import Message
from tests.tiny import BOS_ID, EOS_ID, plain_tokenizer, tiny_tokenizer

TRIMMING = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role here') }}"
    "{% endif %}{{ bos_token }}{{ messages[0]['content'] }}"
)
texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=30)


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE without word borders, which merges ": " and the end of "safe." with "\\n".

    Its tokens run across the end of the prompt and across the end of the content.
    """
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=270,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>"],
        show_progress=False,
    )
    questions = [f"User: is {n} safe.\n\nAssistant: yes, {n} is.\n\n" for n in "abcdefgh"]
    inner.train_from_iterator(questions, trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", inner.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>")


MERGING = merging_tokenizer()


class SlowTokenizer:
    """A tokenizer without character offsets: 'ab' is one token, other characters one each."""

    is_fast = False
    chat_template = None

    def __call__(self, text: str, **_options: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(c) for c in text.replace(": y", "\u0100")]}


def test_a_token_across_the_border_belongs_to_the_response() -> None:
    tokenizer = MERGING
    exchange = encode_exchange(tokenizer, "is a safe.", "yes, a is.")
    first = tokenizer.decode(exchange.response_ids[:1])
    assert first == ": ", "the trained tokenizer no longer merges across the border"
    assert tokenizer.decode(exchange.prompt_ids).endswith("Assistant")
    whole = render(tokenizer, "is a safe.") + " yes, a is."
    assert list(exchange.ids) == tokenizer(whole)["input_ids"]
    alone = tokenizer("yes, a is.", add_special_tokens=False)["input_ids"]
    assert list(exchange.response_ids) != alone


def test_without_offsets_the_border_is_where_the_tokens_part() -> None:
    exchange = encode_exchange(SlowTokenizer(), "hm", "yes")
    assert exchange.ids[exchange.response_start] == 0x100
    assert exchange.response_ids == (0x100, ord("e"), ord("s"))


@given(prompt=texts, response=texts)
def test_tokens_before_the_border_hold_characters_of_the_prompt_only(
    prompt: str, response: str
) -> None:
    tokenizer = MERGING
    exchange = encode_exchange(tokenizer, prompt, response)
    before = tokenizer.decode(exchange.prompt_ids, skip_special_tokens=True)
    whole = tokenizer.decode(exchange.ids, skip_special_tokens=True)
    assert whole == f"User: {prompt}\n\nAssistant: {response}"
    border = len(f"User: {prompt}\n\nAssistant:")
    reached = len(tokenizer.decode(exchange.ids[: exchange.response_start + 1])) - len("<s>")
    assert len(before) <= border < reached


def test_a_template_that_holds_bos_gets_no_second_one() -> None:
    tokenizer = tiny_tokenizer()
    assert tokenizer("x")["input_ids"][0] == BOS_ID, "this tokenizer adds bos by itself"
    ids = encode_prompt(tokenizer, "Is it safe?")
    exchange = encode_exchange(tokenizer, "Is it safe?", "No.")
    assert ids.count(BOS_ID) == exchange.ids.count(BOS_ID) == 1
    assert ids[0] == exchange.ids[0] == BOS_ID
    assert exchange.prompt_ids == ids


def test_a_template_without_bos_gets_none() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TRIMMING
    assert BOS_ID not in encode_prompt(tokenizer, "Is it safe?")


def test_plain_format_has_bos_once_and_no_eos() -> None:
    tokenizer = plain_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", BOS_ID), ("</s>", EOS_ID)]
    )
    assert tokenizer("x")["input_ids"][-1] == EOS_ID, "this tokenizer adds eos by itself"
    prompt = (Message("system", "Be terse."), Message("user", "Safe?"))
    exchange = encode_exchange(tokenizer, prompt, "No.")
    text = tokenizer.decode(exchange.ids)
    assert text == "<s>System: Be terse.\n\nUser: Safe?\n\nAssistant: No."
    assert tokenizer.decode(exchange.response_ids) == " No."
    assert encode_prompt(tokenizer, prompt) == exchange.prompt_ids
    assert "plain" in template_of(tokenizer)


def test_a_template_that_refuses_a_role_is_reported() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = NO_SYSTEM
    prompt = (Message("system", "Be terse."), Message("user", "Safe?"))
    with pytest.raises(TextError, match="no system role here"):
        encode_prompt(tokenizer, prompt)


@pytest.mark.parametrize("tokenizer", [tiny_tokenizer(), plain_tokenizer()])
def test_messages_may_be_mappings(tokenizer: Any) -> None:
    ours = (Message("system", "Be terse."), Message("user", "Safe?"))
    theirs = [{"role": m.role, "content": m.content} for m in ours]
    assert render(tokenizer, theirs) == render(tokenizer, ours)
    assert encode_prompt(tokenizer, theirs) == encode_prompt(tokenizer, ours)
    assert encode_exchange(tokenizer, theirs, "No.") == encode_exchange(tokenizer, ours, "No.")
    assert render(tokenizer, [ours[0], theirs[1]]) == render(tokenizer, ours)


@pytest.mark.parametrize(
    "prompt",
    [
        [],
        None,
        3,
        {"role": "user", "content": "a conversation of one, without its list"},
        [{"role": "user"}],
        [{"role": "narrator", "content": "Once."}],
        [{"role": "user", "content": [{"type": "text", "text": "Safe?"}]}],
        ["Safe?", "Really?"],
    ],
)
def test_what_is_no_prompt_is_reported(prompt: Any) -> None:
    for tokenizer in (tiny_tokenizer(), plain_tokenizer()):
        with pytest.raises(TextError, match="expected"):
            encode_prompt(tokenizer, prompt)


def test_several_templates_need_a_default() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = {"rag": TRIMMING, "tool": TRIMMING}
    with pytest.raises(TextError, match="default"):
        template_of(tokenizer)
    with pytest.raises(TextError):
        encode_prompt(tokenizer, "Safe?")
    tokenizer.chat_template = {"rag": TRIMMING, "default": NO_SYSTEM}
    assert template_of(tokenizer) == NO_SYSTEM


def test_a_response_without_tokens_is_reported() -> None:
    inner = Tokenizer(models.WordLevel({"?": 0, "User": 1, ":": 2}, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="?")
    with pytest.raises(TextError, match="no token"):
        encode_exchange(tokenizer, "Safe?", " \n ")


def test_a_response_without_a_token_before_it_is_reported() -> None:
    """Nothing predicts its first token."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(TextError, match="no token before the response"):
        encode_exchange(tokenizer, "", "Yes.")
    assert encode_exchange(tokenizer, "No", "Yes.").response_start > 0


@pytest.mark.parametrize("template", [None, TRIMMING])
def test_the_tokenizer_is_left_as_it_was(template: str | None) -> None:
    tokenizer = plain_tokenizer()
    tokenizer.chat_template = template
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    before = tokenizer.backend_tokenizer.to_str(), tokenizer.pad_token, dict(vars(tokenizer))
    exchange = encode_exchange(tokenizer, "Is this longer than four tokens?", "Yes.")
    encode_in_user_slot(tokenizer, "Yes.")
    after = tokenizer.backend_tokenizer.to_str(), tokenizer.pad_token, dict(vars(tokenizer))
    assert before == after
    assert 15 < len(exchange.ids) < 50, "truncated or padded"


def test_template_tokens_after_the_content() -> None:
    tokenizer = tiny_tokenizer()
    ids, count = encode_in_user_slot(tokenizer, "Ask a doctor.")
    assert tokenizer.convert_ids_to_tokens(list(ids[-count:])) == ["</s>", "<|assistant|>"]


def test_a_template_that_trims_has_the_same_template_tokens() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TRIMMING
    plain = encode_in_user_slot(tokenizer, "Yes")
    spaced = encode_in_user_slot(tokenizer, "  Yes \n ")
    assert plain == spaced
    assert tokenizer.decode(plain[0][-plain[1] :]) == "\n[assistant]"


def test_a_token_merged_with_the_content_is_no_template_token() -> None:
    tokenizer = MERGING
    merged, few = encode_in_user_slot(tokenizer, "is a safe.")
    _, many = encode_in_user_slot(tokenizer, "is a safe")
    tail = tokenizer.decode(merged[-few:])
    assert "\n\nAssistant:".endswith(tail)
    assert tail != "\n\nAssistant:", "the trained tokenizer no longer merges 'e.\\n\\n'"
    assert few <= many


@given(texts)
def test_template_tokens_never_hold_content(content: str) -> None:
    ids, count = encode_in_user_slot(MERGING, content)
    assert "\n\nAssistant:".endswith(MERGING.decode(ids[len(ids) - count :]))
