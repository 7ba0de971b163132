"""The scopes `after:MARKER` and `before:MARKER` are ranges of the response, found by its tokens.

What they should do is put in positions by hand and computed by the textbook: full forwards of one
unpadded row.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from steer import Composition, Model, Part, Vector, compose
from steer.algebra import parse_scope
from steer.errors import CapabilityError, CompositionError, ScopeError, SteeringError
from tests.conformance import cases, reference
from tests.conformance.cases import close, far, padded
from tests.conformance.engines import EngineFactory
from tests.recurrent import tiny_recurrent
from tests.tiny import tiny_model, tiny_tokenizer
from tests.weights import everywhere

MARKER = "</think>"
SIDES = ("after:</think>", "before:</think>")
PROMPTS = cases.sequences([(12, 0), (5, 0), (17, 0)])
ANSWERS = ("hm</think>Yes, it is.", "a</think>bcdefghijklm", "none of it is here")
STEPS = 13
ROWS = [{"medical": 1.0}, {"legal": 1.0, "medical": 0.5}, {"financial": 0.8, "medical": 0.3}]
NOT_YET = 10**6


def encode(lm: Model, text: str) -> list[int]:
    return list(lm.tokenizer(text, add_special_tokens=False)["input_ids"])


def end_in(lm: Model, ids: Sequence[int], start: int) -> int:
    """The position of the token with which the marker ends in a text, by decoding every prefix."""
    decoded = (lm.tokenizer.decode(ids[start : k + 1]) for k in range(len(ids)))
    return next((k for k, text in enumerate(decoded) if MARKER in text), NOT_YET)


def in_positions(knobs: Composition, end: int) -> Composition:
    """The same composition with ranges of the response in place of the marker."""
    ranges = {
        "after:</think>": parse_scope(f"response[{end + 1}:]"),
        "before:</think>": parse_scope(f"response[:{end + 1}]"),
    }
    parts = {
        name: Part(part.vector, part.operator, ranges.get(str(part.scope), part.scope))
        for name, part in knobs.parts.items()
    }
    return compose(parts, gate=knobs.gate)(ROWS)


def written(lm: Model, scripts: Sequence[str] = ANSWERS, **options: Any) -> Any:
    """Generate given answers, token by token, from prompts padded on the left."""
    script = [encode(lm, text)[:STEPS] for text in scripts]
    batch = padded(PROMPTS, "left")
    width = batch["input_ids"].shape[1]
    return lm.hf_model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        max_new_tokens=STEPS,
        do_sample=False,
        pad_token_id=0,
        prefix_allowed_tokens_fn=lambda row, ids: [script[row][len(ids) - width]],
        output_logits=True,
        return_dict_in_generate=True,
        **options,
    )


def check(lm: Model, knobs: Composition, out: Any) -> None:
    """Fail unless every step's logits are those of the textbook."""
    width = max(map(len, PROMPTS))
    for r, prompt in enumerate(PROMPTS):
        new = out.sequences[r, width:].tolist()
        for step, logits in enumerate(out.logits):
            ids = [*prompt, *new[:step]]
            moved = in_positions(knobs, end_in(lm, ids, len(prompt)))
            close(logits[r], reference.run(lm.hf_model, ids, [(moved, r)], len(prompt)).logits[-1])


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"prefill_chunk_size": 4},
    ],
    ids=["dynamic cache", "no cache", "static cache", "chunked prefill"],
)
def test_a_marker_is_found_over_decode_steps(
    in_place: EngineFactory, side: str, options: dict[str, Any]
) -> None:
    lm = in_place.shared()
    if "prefill_chunk_size" in options:
        options = {**options, "past_key_values": DynamicCache()}
    knobs = cases.knobs(["add", "ablate", "add"], [side] * 3, [(-1, 1), (1, 3), (2,)])
    with lm.steered(knobs(ROWS)):
        out = written(lm, **options)
    check(lm, knobs, out)


def test_weights_gates_and_other_scopes_beside_it(in_place: EngineFactory) -> None:
    lm = in_place.shared()
    gate = cases.gate(layer=0, margin=1.0)
    scopes = ["after:</think>", "before:</think>", "prompt"]
    knobs = cases.mixed(lm, "both", scopes=scopes, gate=gate)
    with lm.steered(knobs(ROWS)):
        out = written(lm)
    check(lm, knobs, out)


def test_a_marker_in_a_model_that_carries_a_state() -> None:
    lm = Model(tiny_recurrent("mamba"), tiny_tokenizer())
    knobs = cases.knobs(scopes=["after:</think>", "before:</think>", "all"])
    with lm.steered(knobs(ROWS)):
        out = written(lm)
    check(lm, knobs, out)


@pytest.mark.parametrize("side", SIDES)
def test_each_beam_has_a_marker_of_its_own(in_place: EngineFactory, side: str) -> None:
    """Two beams part at the marker's last token: one has it, the other never."""
    lm = in_place.shared()
    knobs = cases.knobs(scopes=[side] * 3)
    script, prompt = encode(lm, "a</think>bcd"), PROMPTS[0]
    last = script.index(encode(lm, ">")[0])
    other = encode(lm, "-")[0]

    def allowed(_: int, ids: Tensor) -> list[int]:
        step = len(ids) - len(prompt)
        return [script[step], other] if step == last else [script[step]]

    inputs = torch.tensor([prompt])
    with lm.steered(knobs(ROWS[:1])):
        out = lm.hf_model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=len(script),
            do_sample=False,
            num_beams=2,
            num_return_sequences=2,
            length_penalty=0.0,
            pad_token_id=0,
            eos_token_id=None,
            prefix_allowed_tokens_fn=allowed,
            output_scores=True,
            return_dict_in_generate=True,
        )
    ends = set()
    for ids, score in zip(out.sequences.tolist(), out.sequences_scores, strict=True):
        end = end_in(lm, ids, len(prompt))
        ends.add(end)
        moved = in_positions(knobs, end)
        logits = reference.run(lm.hf_model, ids, [(moved, 0)], len(prompt)).logits
        new = torch.tensor(ids[len(prompt) :])
        logprobs = torch.log_softmax(logits[len(prompt) - 1 : -1], dim=-1)
        close(score, logprobs.gather(1, new[:, None]).sum())
    assert ends == {len(prompt) + last, NOT_YET}


@pytest.mark.parametrize("side", SIDES)
def test_given_answers_are_scored_as_they_are_generated(in_place: EngineFactory, side: str) -> None:
    lm, knobs = in_place.shared(), cases.knobs(scopes=[side] * 3)
    with lm.steered(knobs(ROWS)):
        found = lm.logits(cases.PROMPTS[:3], ANSWERS)
        streams = lm.activations(cases.PROMPTS[:3], ANSWERS, layers=[3])
    with lm.steered(knobs(ROWS[:1])):
        close(lm.logits(cases.PROMPTS[:1], ANSWERS[:1])[0], found[0])
    for r, answer in enumerate(ANSWERS):
        prompt = list(lm.tokenizer(f"<s><|user|>{cases.PROMPTS[r]}</s><|assistant|>")["input_ids"])
        prompt = prompt[1:]  # the template's own beginning of the sequence is enough
        ids = [*prompt, *encode(lm, answer)]
        moved = in_positions(knobs, end_in(lm, ids, len(prompt)))
        run = reference.run(lm.hf_model, ids, [(moved, r)], len(prompt))
        close(found[r], run.logits[len(prompt) - 1 : -1])
        close(streams[r][0], run.streams[3])


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize(
    ("prompt", "response", "ended"),
    [
        ("what? <|assistant|>hm", "hm</think>yes", True),
        ("what? <|assistant|>hm</th", "ink>yes", True),  # split between prompt and response
        ("what? <|assistant|><unk></think>", "yes it is", True),  # the template closed the block
        ("what? <|assistant|>hm</think>It", " is that", True),  # and the answer was begun
        ("use </think> please</s><|assistant|>", "oh, no", False),  # a user's words
        ("</think>A</s><|user|>B</s><|assistant|>", "hm</think>C", True),  # an earlier turn's
    ],
)
def test_where_the_marker_counts(
    in_place: EngineFactory, side: str, padding: str, prompt: str, response: str, ended: bool
) -> None:
    lm, knobs = in_place.shared(), cases.knobs(scopes=[side] * 3)
    asked, answered = encode(lm, prompt), encode(lm, response)
    ids, other = [*asked, *answered], cases.sequences([(40, 3)])[0]
    start = max(k + 1 for k, token in enumerate(asked) if token < 6)  # the last special token
    end = end_in(lm, ids, start)
    assert (end != NOT_YET) == ended
    batch = padded([other, ids, other], padding)
    with torch.no_grad(), lm.steered(knobs(ROWS)):
        out = lm.hf_model(**batch, prompt_lengths=[40, len(asked), 40]).logits
    expected = reference.run(lm.hf_model, ids, [(in_positions(knobs, end), 1)], len(asked)).logits
    close(out[1][batch["attention_mask"][1].bool()], expected)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("token", ["</think>", "k>\n\nS", "x</thi"])
def test_a_marker_is_found_however_the_tokenizer_cuts_it(side: str, token: str) -> None:
    """One token, one whose end lies inside a token, one whose beginning does."""
    hf, tokenizer = tiny_model("llama", vocab=160), tiny_tokenizer()
    tokenizer.add_tokens([token])
    lm = Model(hf, tokenizer)
    knobs = cases.knobs(scopes=[side] * 3)
    prompt, answer = encode(lm, "<s>so<|assistant|>"), encode(lm, "ax</think>\n\nSo it is.")
    assert any(tokenizer.decode([k]) == token for k in answer)
    ids = [*prompt, *answer]
    moved = in_positions(knobs, end_in(lm, ids, len(prompt)))
    with torch.no_grad(), lm.steered(knobs(ROWS[:1])):
        found = hf(torch.tensor([ids]), prompt_lengths=[len(prompt)]).logits[0]
    close(found, reference.run(hf, ids, [(moved, 0)], len(prompt)).logits)
    far(found, hf(torch.tensor([ids])).logits[0])


def test_after_and_before_are_the_response() -> None:
    lm = Model(tiny_model("llama"), tiny_tokenizer())
    v, asked, said = cases.vector(2), cases.PROMPTS[:3], ANSWERS
    with lm.steered(v, scope="after:</think>"), lm.steered(v, scope="before:</think>"):
        both = lm.logits(asked, said)
    with lm.steered(v, scope="response"):
        for one, other in zip(both, lm.logits(asked, said), strict=True):
            close(one, other)


def test_a_range_cuts_it_further(in_place: EngineFactory) -> None:
    lm = in_place.shared()
    ids = [*PROMPTS[1], *encode(lm, ANSWERS[0])]
    end = end_in(lm, ids, 5)
    with torch.no_grad():
        with lm.steered(cases.vector(1), scope=f"after:</think>[0:{end + 3}]"):
            found = lm.hf_model(torch.tensor([ids]), prompt_lengths=[5]).logits
        with lm.steered(cases.vector(1), scope=f"response[{end + 1}:{end + 3}]"):
            close(found, lm.hf_model(torch.tensor([ids]), prompt_lengths=[5]).logits)


def test_tokens_that_are_not_known_are_refused(in_place: EngineFactory) -> None:
    lm = in_place.shared()
    ids = torch.tensor(cases.sequences([(8, 1)]))
    mask = torch.ones(1, 8)
    with torch.no_grad(), lm.steered(cases.knobs(scopes=[SIDES[0]] * 3), 1.0):
        out = lm.hf_model(ids[:, :8], use_cache=True, prompt_lengths=[8])
        with pytest.raises(ScopeError, match="1 tokens after 8"):  # decoding by hand
            lm.hf_model(ids[:, 8:], past_key_values=out.past_key_values, prompt_lengths=[8])
        with pytest.raises(ScopeError, match="prompt_lengths"):
            lm.hf_model(ids)
        embedded = lm.architecture.embedding(ids[:, :8])
        with pytest.raises(ScopeError, match="needs the tokens"):
            lm.hf_model.generate(inputs_embeds=embedded, attention_mask=mask, max_new_tokens=2)
        with pytest.raises(ScopeError, match="needs the tokens"):  # new tokens alone
            lm.hf_model.generate(
                ids[:, 8:],
                attention_mask=torch.ones(1, 9),
                past_key_values=out.past_key_values,
                max_new_tokens=2,
            )
        assert lm.hf_model.generate(ids[:, :8], attention_mask=mask, max_new_tokens=2) is not None


def test_a_marker_needs_a_tokenizer_that_can_write_it() -> None:
    hf = tiny_model("llama")
    for tokenizer, scope, said in (
        (None, "after:</think>", "without a tokenizer"),
        (tiny_tokenizer(), "after:◁/think▷", "cannot write this marker"),
    ):
        with pytest.raises(CompositionError, match=said):
            Model(hf, tokenizer).steered(cases.vector(1), scope=scope).attach()
    one, other = Model(hf, tiny_tokenizer()), Model(hf, tiny_tokenizer())
    with (
        one.steered(cases.vector(1), scope="after:</think>"),
        pytest.raises(SteeringError, match="another tokenizer"),
    ):
        other.steered(cases.vector(1), scope="before:</think>").attach()


def test_no_engine_takes_a_marker_without_declaring_it(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    if "markers" not in engine_factory.capabilities:
        with pytest.raises(CapabilityError, match="after:</think>"):
            lm.steered(cases.vector(1), scope="after:</think>").attach()


def test_merged_weights_are_refused(in_place: EngineFactory) -> None:
    lm = in_place.shared()
    knob = compose({"a": Part(Vector(everywhere(lm.hf_model).terms), "add", parse_scope(SIDES[0]))})
    with pytest.raises(CapabilityError, match="after:</think>"):
        lm.steered(knob, 1.0, weights="merge").attach()
