"""Streaming tells, while it grows, what `generate` returns."""

import itertools
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import steer
from steer.errors import CapabilityError, TextError
from steer.model import stream
from steer.network import encode_prompt
from tests.console.setting import QUESTION, knobs, model
from tests.tiny import tiny_model

OTHER = "Can my landlord keep the deposit?"


def test_one_prompt_grows_to_what_generate_returns() -> None:
    told: list[str] = []
    found = stream(model(), QUESTION, told.append, max_new_tokens=20)
    assert found == told[-1] == model().generate(QUESTION, max_new_tokens=20)
    assert len(told) > 10
    assert all(b.startswith(a) and b != a for a, b in itertools.pairwise(told))
    assert all(not text.endswith(" ") for text in told)


def test_rows_of_a_batch_grow_side_by_side_each_at_its_setting() -> None:
    lm, told = model(), []
    prompts, rows = [QUESTION, QUESTION, OTHER], [{"medical": -0.75}, {}, {"legal": 0.75}]
    with lm.steered(knobs(), rows):
        found = stream(lm, prompts, told.append, max_new_tokens=40)
        assert found == lm.generate(prompts, max_new_tokens=40)
    assert found == told[-1]
    assert len(set(found)) == 3
    assert any(all(texts) and texts != found for texts in told), "all at once"
    for earlier, later in itertools.pairwise(told):
        assert all(b.startswith(a) for a, b in zip(earlier, later, strict=True))
    ended = found[0]  # the shortest: padding follows it in its row
    assert len(ended) < min(map(len, found[1:]))
    assert sum(texts[0] == ended and texts[1] != found[1] for texts in told) > 1


def test_stopping_ends_every_row_where_it_is() -> None:
    told: list[list[str]] = []
    found = stream(
        model(), [QUESTION, OTHER], told.append, stop=lambda: len(told) >= 4, max_new_tokens=60
    )
    whole = model().generate([QUESTION, OTHER], max_new_tokens=60)
    assert all(b.startswith(a) and a and a != b for a, b in zip(found, whole, strict=True))
    assert len(told) <= 6


def test_stopping_and_streaming_leave_the_callers_own_criteria() -> None:
    asked: list[int] = []

    def third(ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        asked.append(ids.shape[1])
        return torch.full(ids.shape[:1], len(asked) == 3)

    own = [third]
    found = stream(model(), QUESTION, lambda _: None, stop=lambda: False, stopping_criteria=own)
    assert len(asked) == 3
    assert own == [third]
    assert found == model().generate(QUESTION, max_new_tokens=3)


def bytewise(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per byte: as GPT-2's, or SentencePiece's for rare characters."""
    if kind == "level":
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        core = Tokenizer(models.BPE({c: k for k, c in enumerate([*letters, "</s>"])}, []))
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
    else:
        names = [f"<0x{b:02X}>" for b in range(256)]
        vocabulary = {name: k for k, name in enumerate([*names, "</s>"])}
        core = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="</s>"))
        core.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", pad_token="</s>")


@pytest.mark.parametrize("kind", ["level", "fallback"])
def test_half_a_character_is_not_told_and_what_follows_the_end_is_not_either(kind: str) -> None:
    tokenizer = bytewise(kind)
    lm = steer.Model(tiny_model("llama", vocab=257), tokenizer)
    lm.hf_model.generation_config.eos_token_id = 256
    texts = ["né 👍🏽 日本", "ok"]
    written = [tokenizer(text)["input_ids"] for text in texts]
    assert [len(ids) for ids in written] == [len(text.encode()) for text in texts]
    start = len(encode_prompt(tokenizer, "hi"))

    def write(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step, only = ids.shape[1] - start, torch.full_like(scores, -1e9)
        for row, wanted in enumerate(written):
            only[row, wanted[step] if step < len(wanted) else 256] = 0.0
        return only

    told: list[list[str]] = []
    prompts = ["hi", "hi"]
    found = stream(lm, prompts, told.append, logits_processor=[write], max_new_tokens=40)
    assert found == texts == told[-1]
    shown = {row[0] for row in told}
    assert all(texts[0].startswith(text) for text in shown), shown
    assert len(shown) >= (len(texts[0]) if kind == "level" else 4)
    assert {row[1] for row in told} <= {"", "o", "ok"}


def test_the_word_that_ends_an_answer_is_not_told() -> None:
    lm, told = model(), []
    (end,) = lm.tokenizer("gout", add_special_tokens=False)["input_ids"]
    prompts, options = [QUESTION, OTHER], {"eos_token_id": end, "max_new_tokens": 20}
    found = stream(lm, prompts, told.append, **options)
    assert found == lm.generate(prompts, **options)
    assert found[0] == "It is common to have"
    assert len(found[1]) > 2 * len(found[0]), "the other row goes on"
    assert all(found[0].startswith(texts[0]) for texts in told)


def test_an_error_of_the_listener_comes_through_and_the_model_can_go_on() -> None:
    def listen(text: str) -> None:
        raise KeyError(text)

    lm = model()
    with pytest.raises(KeyError), lm.steered(knobs(), medical=0.5):
        stream(lm, QUESTION, listen)
    assert stream(lm, QUESTION, lambda _: None, max_new_tokens=5) == lm.generate(
        QUESTION, max_new_tokens=5
    )


def test_what_cannot_be_streamed_is_refused() -> None:
    with pytest.raises(ValueError, match="beam"):
        stream(model(), QUESTION, lambda _: None, num_beams=2)
    with pytest.raises(TextError):
        stream(model(), [7], lambda _: None)  # type: ignore[list-item]
    with pytest.raises(TextError, match="batch_size"):
        stream(model(), [QUESTION], lambda _: None, batch_size=1)


def test_an_engine_elsewhere_cannot_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model().engine, "capabilities", frozenset())
    with pytest.raises(CapabilityError, match="streaming"):
        stream(model(), QUESTION, lambda _: None)


def test_no_prompts_and_an_empty_answer() -> None:
    told: list[Any] = []
    assert stream(model(), [], told.append) == []
    assert told == []
    end = model().hf_model.generation_config.eos_token_id
    forced = {"prefix_allowed_tokens_fn": lambda *_: [end]}
    assert stream(model(), QUESTION, told.append, **forced) == ""
    assert told == [""]
