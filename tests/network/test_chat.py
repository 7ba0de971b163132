"""Arguments of chat templates, and conversations that end with the assistant."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import pipeline

import steer
from steer.errors import FitError, PairsError, TextError
from steer.measure import likelihoods
from steer.model import prompt_batch, stream
from steer.network import Chat, encode_exchange, encode_prompt, render
from tests.tiny import plain_tokenizer, tiny_model, tiny_tokenizer

SWITCH = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% if add_generation_prompt %}<|assistant|>{% if brief %}(brief) {% endif %}{% endif %}"
)
NEEDY = (
    "{% if mark is not defined %}{{ raise_exception('rendered without the argument') }}{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ mark }}{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TRIMMING = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
TALK = [{"role": "user", "content": "Safe?"}, {"role": "assistant", "content": "As a doctor, I"}]


def with_template(template: str | None) -> Any:
    tokenizer = plain_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def model(template: str | None = SWITCH, **arguments: Any) -> steer.Model:
    return steer.Model(
        tiny_model("llama"), with_template(template), chat_template_kwargs=arguments or None
    )


# -- arguments -----------------------------------------------------------------------------------


def test_arguments_reach_the_template_and_the_model_keeps_its_own_copy() -> None:
    tools = [{"type": "function", "function": {"name": "look"}}]
    lm = model(brief=True, tools=tools)
    tools[0]["type"] = "changed"
    text = render(lm.chat, "Safe?")
    assert text.startswith("<|user|>Safe?</s>[")
    assert '"function": {"name": "look"}' in text
    assert "changed" not in text
    assert text.endswith("<|assistant|>(brief) ")
    lm.chat_template_kwargs["brief"] = False
    assert lm.chat_template_kwargs["brief"] is True
    assert prompt_batch(lm.chat, ["Safe?"]).ids[0] == encode_prompt(lm.chat, "Safe?")


@pytest.mark.parametrize(
    ("template", "arguments", "message"),
    [
        (SWITCH, {"breif": True}, "does not read these arguments\n.*breif"),
        (SWITCH, {"add_generation_prompt": False}, "each call decides"),
        (SWITCH, {"continue_final_message": True}, "does not read these arguments"),
        (SWITCH, {"messages": []}, "each call decides"),
        (SWITCH, {"tools": [print]}, "not JSON serializable"),
        (SWITCH, {"tools": {1: "a"}}, "strings as keys"),
        (SWITCH, {"brief": float("nan")}, "JSON"),
        (SWITCH, ["brief"], "list"),
        (None, {"brief": True}, "no chat template"),
    ],
)
def test_arguments_that_the_template_cannot_take_are_refused(
    template: str | None, arguments: Any, message: str
) -> None:
    with pytest.raises(TextError, match=message):
        steer.Model(tiny_model("llama"), with_template(template), chat_template_kwargs=arguments)


def test_arguments_need_a_tokenizer() -> None:
    with pytest.raises(TextError, match="no tokenizer"):
        steer.Model(tiny_model("llama"), chat_template_kwargs={"brief": True})


def test_arguments_of_from_pretrained(tmp_path: Path) -> None:
    lm = model()
    lm.hf_model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    loaded = steer.Model.from_pretrained(tmp_path, chat_template_kwargs={"brief": True})
    assert render(loaded.chat, "Safe?").endswith("(brief) ")


def test_arguments_are_part_of_the_template_fingerprint() -> None:
    """Without arguments the fingerprint is what it was before there were any."""
    before = hashlib.sha256(json.dumps(SWITCH, separators=(",", ":")).encode()).hexdigest()
    plain, empty, brief, same, other = (
        model().info,
        steer.Model(tiny_model("llama"), with_template(SWITCH), chat_template_kwargs={}).info,
        model(brief=True, tools=[]).info,
        model(tools=[], brief=True).info,
        model(brief=False).info,
    )
    assert plain.template == empty.template == before
    assert brief.template == same.template
    assert len({plain.template, brief.template, other.template}) == 3
    assert len({info.tokenizer for info in (plain, brief, other)}) == 1


def test_a_vector_made_with_arguments_is_refused_without_them() -> None:
    lm = model(brief=True)
    pairs = [steer.Pair(f"{n}?", "water", "wind") for n in range(4)]
    vector = steer.mean_difference(steer.record(lm, pairs, at="response_last", progress=False))
    lm.steered(vector, 1.0)
    with pytest.raises(FitError, match="chat template"):
        model().steered(vector, 1.0)


@pytest.mark.filterwarnings("ignore::steer.errors.DataWarning")  # two words
def test_every_rendering_passes_the_arguments() -> None:
    lm = model(NEEDY, mark="x")
    with pytest.raises(TextError, match="rendered without"):
        render(lm.tokenizer, "Safe?")
    pairs = steer.Pairs.of(
        steer.Pair(f"{n}?", "water", "wind", domain) for n in "abcdefgh" for domain in ("a", "b")
    )
    kept = steer.record(lm, pairs, at=["template", "response_mean"], progress=False)
    vector = steer.mean_difference(kept, domain="a", position="response_mean")
    lm.generate("Safe?", max_new_tokens=2)
    stream(lm, "Safe?", lambda _: None, max_new_tokens=2)
    with lm.steered(vector, 0.5, scope="after:#"):
        lm.generate("Safe?", max_new_tokens=2)
    lm.logits(["Safe?"], ["No."])
    lm.activations(["Safe?"])
    lm.activations(["Safe?"], ["No."])
    steer.preference(lm, pairs)
    text = steer.neutral_text(lm, ["Safe?"], max_new_tokens=3)
    assert steer.kl_divergence(lm, text).value == 0
    steer.domain_gate(lm, {"a": ["Safe?", "Sane?"], "b": ["Now?", "How?"]}, layer=0)
    steer.view.trajectory(lm, vector, "Safe?", response="No.", layer=1)
    steer.view.displacement(lm, vector, ["Safe?"])
    steer.view.displacement(lm, vector, ["Safe?"], responses=["No."])
    steer.calibrate(lm, vector, 0.01, neutral=text, tolerance=0.2, progress=False)
    likelihoods(lm, steer.compose(a=vector), [{"a": 0.5}], ["Safe?"], ["No."])
    tuned = steer.preference_tune(lm, pairs[:2], steps=1, batch_size=2, progress=False)
    assert tuned.chat_template_kwargs == {"mark": "x"}


# -- a conversation that ends with the assistant ---------------------------------------------------


@pytest.mark.parametrize("template", [SWITCH, TRIMMING, None])
@pytest.mark.parametrize("begun", ["As a doctor, I", "As a doctor, ", " As\n", "As a doctor.</s>"])
def test_it_is_continued_as_the_pipeline_does(template: str | None, begun: str) -> None:
    lm = model(template)
    lm.hf_model.generation_config.eos_token_id = None
    talk = [TALK[0], {"role": "assistant", "content": begun}]
    (answer,) = lm.generate([talk], max_new_tokens=6)
    if template is None:
        assert render(lm.chat, talk) == f"User: Safe?\n\nAssistant: {begun}"
        return
    wanted = lm.tokenizer.apply_chat_template(talk, tokenize=False, continue_final_message=True)
    assert render(lm.chat, talk) == wanted
    run = pipeline("text-generation", model=lm.hf_model, tokenizer=lm.tokenizer)
    (found,) = run(talk, max_new_tokens=6, do_sample=False)
    assert found["generated_text"][-1]["content"] == begun + answer


def test_answers_go_on_where_the_conversation_ends() -> None:
    for template, before, after in [
        (SWITCH, "<|user|>Safe?</s><|assistant|>As a doctor, I", " would not."),
        (None, "<s>User: Safe?\n\nAssistant: As a doctor, I", " would not."),
    ]:
        lm = model(template)
        exchange = encode_exchange(lm.chat, TALK, after)
        assert lm.tokenizer.decode(exchange.prompt_ids) == before
        assert lm.tokenizer.decode(exchange.response_ids) == after
        (scored,) = lm.logprobs([TALK], [after])
        assert len(scored) == len(exchange.response_ids)
    empty = [TALK[0], {"role": "assistant", "content": ""}]
    lm = model(None)
    assert render(lm.chat, empty) == "User: Safe?\n\nAssistant:"
    assert encode_exchange(lm.chat, empty, "No.") == encode_exchange(lm.chat, "Safe?", "No.")


def test_pairs_may_continue_the_assistant(tmp_path: Path) -> None:
    rows = [{"prompt": TALK, "chosen": " would not.", "rejected": " would."}]
    pairs = steer.Pairs.load(rows)
    pairs.save(tmp_path / "pairs.jsonl")
    assert steer.Pairs.load(tmp_path / "pairs.jsonl") == pairs
    lm = model()
    chosen, rejected = (lm.logprobs([TALK], [text])[0] for text in (" would not.", " would."))
    margin = float(chosen.double().mean() - rejected.double().mean())
    assert steer.preference(lm, pairs).margin == pytest.approx(margin, abs=1e-5)
    steer.record(lm, pairs, at="response_first", progress=False)
    with pytest.raises(PairsError, match="last of them the user's"):
        steer.preference_tune(lm, pairs, steps=1, progress=False)


# -- fields of messages ----------------------------------------------------------------------------

THOUGHTFUL = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.reasoning_content %}({{ m.reasoning_content }}) {% endif %}"
    "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def test_fields_that_the_template_reads_are_carried_and_others_are_refused() -> None:
    said = {"role": "assistant", "content": "Yes.", "reasoning_content": "tea", "id": 7}
    talk = [TALK[0], said, {"role": "user", "content": "Sure?"}]
    lm = model(THOUGHTFUL)
    assert render(lm.chat, talk) == (
        "<|user|>Safe?</s><|assistant|>(tea) Yes.</s><|user|>Sure?</s><|assistant|>"
    )
    assert render(lm.chat, [TALK[0], {**said, "reasoning_content": None}]).endswith(">Yes.")
    for other in (model(SWITCH), model(None)):
        with pytest.raises(TextError, match="does not read the field 'reasoning_content'"):
            other.generate([talk])


def test_a_text_goes_through_the_plain_module() -> None:
    assert steer.network.render(tiny_tokenizer(), "Safe?") == render(
        Chat(tiny_tokenizer()), "Safe?"
    )


def test_a_difference_of_weights_does_not_depend_on_template_arguments() -> None:
    base, aligned = (
        model(brief=True),
        steer.Model(tiny_model("llama", seed=1), with_template(SWITCH)),
    )
    vector = steer.alignment_vector(base, aligned)
    base.steered(vector, 0.0)
