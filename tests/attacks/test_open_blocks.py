"""Chat templates that open a block: an answer stands behind it or fills it, never doubles it."""

from typing import Any

import pytest
import torch

import steer
from steer.errors import TextError
from steer.network import Continuation, encode_exchange, encode_prompt
from tests.conformance.cases import close
from tests.tiny import plain_tokenizer, tiny_model

_TURNS = "{% for m in messages %}<|{{ m.role }}|>"
R1 = (  # finished answers lose their thoughts, as in DeepSeek-R1
    _TURNS + "{{ m.content.split('</think>')[-1] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
SHUTS = (  # the template itself shows how it closes the block before a finished answer
    _TURNS + "{% if m.role == 'assistant' %}<think>\n(none)\n</think>\n{% endif %}"
    "{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
ALWAYS = "{% for m in messages %}{{ m.content }}{% endfor %}<think>{{ '\n' }}"  # asked for or not
SWITCHED = (
    _TURNS + "{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
    "{% else %}<think>\n{% endif %}{% endif %}"
)
OTHER = (
    _TURNS + "{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><answer>\n{% endif %}"
)
HEADER = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
BEGUN = "<|user|>Safe?</s><|assistant|><think>\n"


def with_template(template: str) -> Any:
    tokenizer = plain_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def text(tokenizer: Any, prompt: Any, answer: str) -> tuple[str, str]:
    exchange = encode_exchange(tokenizer, prompt, answer)
    tokenizer = steer.network.as_chat(tokenizer).tokenizer
    return tokenizer.decode(exchange.prompt_ids), tokenizer.decode(exchange.response_ids)


SQUARE = R1.replace("<think>", "[THINK]").replace("</think>", "[/THINK]")


@pytest.mark.parametrize(
    ("template", "answer", "before", "after"),
    [
        (R1, "No.", BEGUN + "\n</think>\n\n", "No."),
        (R1, "<think>\nhm\n</think>\n\nNo.", BEGUN, "hm\n</think>\n\nNo."),
        (R1, "\n<think>hm</think>No.", BEGUN, "hm</think>No."),
        (R1, "hm\n</think>\n\nNo.", BEGUN, "hm\n</think>\n\nNo."),
        (R1.replace("<think>\n", "<think>"), "No.", BEGUN[:-1] + "</think>", "No."),
        (SQUARE, "No.", BEGUN.replace("<think>", "[THINK]") + "\n[/THINK]\n\n", "No."),
        (SHUTS, "No.", BEGUN + "(none)\n</think>\n", "No."),
        (SHUTS, "<think>\nhm\n</think>\nNo.", BEGUN, "hm\n</think>\nNo."),
        (ALWAYS, "No.", "Safe?<think>\n\n</think>\n\n", "No."),
        (SWITCHED, "No.", BEGUN + "\n</think>\n\n", "No."),
        (OTHER, "<answer>\nNo.</answer>", BEGUN.replace("think", "answer"), "No.</answer>"),
        (HEADER, "No.", "<user>Safe?</user><assistant>", "No."),
        (HEADER, "</assistant>", "<user>Safe?</user><assistant>", "</assistant>"),
    ],
)
def test_an_opened_block_is_closed_before_a_plain_answer_and_never_doubled(
    template: str, answer: str, before: str, after: str
) -> None:
    assert text(with_template(template), "Safe?", answer) == (before, after)


def test_a_block_that_the_user_writes_is_text_of_the_user() -> None:
    bare = with_template("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}")
    assert text(bare, "What is <think>\n", "No.") == ("<|user|>What is <think>\n", "No.")
    begun = [{"role": "user", "content": "Safe?"}, {"role": "assistant", "content": "<think>\n"}]
    assert text(bare, begun, "hm") == ("<|user|>Safe?<|assistant|><think>\n", "hm")


@pytest.mark.parametrize(
    ("template", "answer", "message"),
    [
        (OTHER, "No.", "does not say whether it belongs"),
        (SWITCHED, "<think>\nhm\n</think>No.", "has closed already"),
    ],
)
def test_what_cannot_be_placed_is_refused(template: str, answer: str, message: str) -> None:
    arguments = {"enable_thinking": False} if template is SWITCHED else {}
    chat = steer.network.Chat(with_template(template), arguments)
    with pytest.raises(TextError, match=message):
        encode_exchange(chat, "Safe?", answer)


def test_likelihoods_and_recordings_are_those_of_the_closed_text() -> None:
    tokenizer, model = with_template(R1), tiny_model("llama")
    lm = steer.Model(model, tokenizer)
    before = tokenizer(BEGUN + "\n</think>\n\n", add_special_tokens=False)["input_ids"]
    answer = tokenizer("No.", add_special_tokens=False)["input_ids"]
    ids = torch.tensor([before + answer])
    with torch.no_grad():
        table = torch.log_softmax(model(ids).logits[0].double(), dim=-1)
        stream = model(ids, output_hidden_states=True).hidden_states[2][0]
    wanted = [float(table[len(before) - 1 + k, token]) for k, token in enumerate(answer)]
    (found,) = lm.logprobs(["Safe?"], ["No."])
    assert found.tolist() == pytest.approx(wanted, rel=1e-5)
    pairs = [steer.Pair("Safe?", "No.", "Yes.")]
    kept = steer.record(lm, pairs, at="response_first", layers=[1], progress=False)
    close(kept.of().mean_chosen[0], stream[len(before)])


def test_what_a_model_writes_inside_the_block_stays_there() -> None:
    lm = steer.Model(tiny_model("llama"), with_template(R1))
    answer = lm.generate("Safe?", max_new_tokens=5)
    assert isinstance(answer, Continuation)
    assert text(lm.chat, "Safe?", answer)[0] == BEGUN
    assert text(lm.chat, "Safe?", str(answer))[0] == BEGUN + "\n</think>\n\n"
    neutral = steer.neutral_text(lm, ["Safe?"], max_new_tokens=5)
    ids = encode_prompt(lm.chat, "Safe?") + encode_exchange(lm.chat, "Safe?", answer).response_ids
    with torch.no_grad():
        logits = lm.hf_model(torch.tensor([ids])).logits[0]
    n = len(neutral.logits[0])
    torch.testing.assert_close(neutral.logits[0], logits[-n - 1 : -1], rtol=1e-5, atol=1e-5)


def test_a_plain_answer_stands_behind_the_marker_that_closes_the_block() -> None:
    lm = steer.Model(tiny_model("llama"), with_template(R1))
    vector = steer.Vector.of({1: torch.ones(32)})
    (plain,) = lm.logprobs(["Safe?"], ["No way."])
    found = []
    for scope in ("after:</think>", "response"):
        with lm.steered(vector, 0.5, scope=scope):
            found += lm.logprobs(["Safe?"], ["No way."])
    assert not torch.equal(found[0], plain)
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)
    with lm.steered(vector, 0.5, scope="before:</think>"):
        (thinking,) = lm.logprobs(["Safe?"], ["No way."])
    assert torch.equal(thinking, plain), "the empty block is part of the prompt"
