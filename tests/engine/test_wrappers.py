"""Inside the context, whatever calls the user's model is steered: pipelines, adapters' wrappers."""

import warnings
from threading import Event, Thread
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TextIteratorStreamer,
    TextStreamer,
    pipeline,
)

from steer import Model
from steer.engine import injector_of
from steer.errors import RowsError
from tests.conformance import cases
from tests.conformance.cases import Snapshot, close, far, padded
from tests.tiny import tiny_model, tiny_tokenizer

SCOPED = cases.knobs(scopes=["response", "all", "prompt"])
ROWS = [{"medical": 1.0}, {}, {"legal": 1.0}, {"financial": 1.0}]
LENGTHS = [12, 5, 17, 8]


def model() -> Model:
    return Model(tiny_model("llama"), tiny_tokenizer())


@pytest.mark.parametrize("scope", ["all", "response", "last_prompt", "all[3:]"])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_pipeline_is_steered(scope: str, batch_size: int) -> None:
    lm = model()
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
    generator = pipeline("text-generation", model=lm.hf_model, tokenizer=tokenizer)
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": 5, "batch_size": batch_size}
    prompts = ["What is the dose?", "Sell", "Is it binding?"]

    def answers() -> list[str]:
        return [out[0]["generated_text"] for out in generator(prompts, **options)]

    plain = answers()
    knobs = cases.knobs(scopes=[scope] * 3, gate=cases.gate(layer=0, margin=9.0))
    with lm.steered(knobs, 2.0):
        steered = answers()
        ids = [tokenizer(prompt)["input_ids"] for prompt in prompts]
        alone = [
            lm.hf_model.generate(
                torch.tensor([row]), do_sample=False, max_new_tokens=5, pad_token_id=2
            )[0]
            for row in ids
        ]
    assert steered == [tokenizer.decode(row, skip_special_tokens=True) for row in alone]
    assert steered != plain
    assert answers() == plain


class Wrapper(nn.Module):
    """What an adapter library puts around a model: calls go through, attributes too."""

    def __init__(self, inner: nn.Module, directly: bool) -> None:
        super().__init__()
        self.inner = inner
        self.directly = directly

    def get_base_model(self) -> nn.Module:
        return self.inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return (self.inner.forward if self.directly else self.inner)(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner.generate(*args, **kwargs)  # type: ignore[operator]

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


@pytest.mark.parametrize("directly", [False, True], ids=["by call", "by forward"])
def test_a_wrapped_model_is_steered_by_both_ways_in(directly: bool) -> None:
    bare = model()
    wrapped = Model(Wrapper(bare.hf_model, directly), tiny_tokenizer())
    batch = padded(cases.sequences(), "right")
    prompts = padded(cases.sequences(), "left")
    inputs = {name: prompts[name] for name in ("input_ids", "attention_mask")}
    options = {"do_sample": False, "max_new_tokens": 3, "pad_token_id": 0}
    before = Snapshot(bare.hf_model)
    with torch.no_grad():
        plain = bare.hf_model(**batch).logits
        with bare.steered(SCOPED, ROWS):
            expected = bare.hf_model(**batch, prompt_lengths=LENGTHS).logits
            tokens = bare.hf_model.generate(**inputs, **options)
        with wrapped.steered(SCOPED, ROWS):
            for way in (wrapped.hf_model, bare.hf_model):
                assert torch.equal(way(**batch, prompt_lengths=LENGTHS).logits, expected)
                assert torch.equal(way.generate(**inputs, **options), tokens)
            assert injector_of(wrapped.architecture) is injector_of(bare.architecture)
    far(expected, plain)
    before.check(bare.hf_model)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_a_real_adapter_is_steered() -> None:
    peft: Any = pytest.importorskip("peft", reason="peft is not installed")
    hf = tiny_model("llama")
    adapted = peft.get_peft_model(hf, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    lm = Model(adapted.eval(), tiny_tokenizer())
    batch = padded(cases.sequences(), "right")
    with torch.no_grad():
        plain = adapted(**batch).logits
        with lm.steered(SCOPED, ROWS):
            steered = adapted(**batch, prompt_lengths=LENGTHS).logits
            lm.generate(list(cases.PROMPTS), max_new_tokens=2)
    close(steered[1, :14], plain[1, :14])
    far(steered[0], plain[0])
    close(adapted(**batch).logits, plain)


def test_a_copy_made_after_leaving_is_a_model_of_its_own() -> None:
    import copy

    lm = model()
    batch = padded(cases.sequences(), "right")
    with lm.steered(SCOPED, ROWS):
        lm.hf_model(**batch, prompt_lengths=LENGTHS)
    other = Model(copy.deepcopy(lm.hf_model), tiny_tokenizer())
    plain = other.hf_model(**batch).logits
    with lm.steered(SCOPED, ROWS):
        assert torch.equal(other.hf_model(**batch).logits, plain)


def test_the_prompts_of_one_pipeline_batch_take_their_rows() -> None:
    lm, tokenizer = model(), tiny_tokenizer()
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
    generator = pipeline("text-generation", model=lm.hf_model, tokenizer=tokenizer)
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": 5}
    prompts = ["What is the dose?", "Sell", "Is it binding?"]

    def answers(prompts: list[str], size: int) -> list[str]:
        return [out[0]["generated_text"] for out in generator(prompts, batch_size=size, **options)]

    plain = answers(prompts, 3)
    with lm.steered(SCOPED, ROWS[:3]):
        together = answers(prompts, 3)
        with pytest.raises(RowsError, match="3 rows for 2 prompts"):
            answers(prompts, 2)
    for prompt, row, answer in zip(prompts, ROWS, together, strict=False):
        with lm.steered(SCOPED, [row]):
            assert answers([prompt], 1) == [answer]
    assert together != plain
    assert together[1] == plain[1]


class Printed(TextStreamer):
    """A `TextStreamer` that keeps what it would print."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer, skip_prompt=True)
        self.text = ""

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.text += text


GATED = cases.knobs(scopes=["response", "all", "prompt"], gate=cases.gate(layer=0, margin=9.0))


@pytest.mark.parametrize(
    ("knobs", "coefficients"),
    [
        (cases.vector(1, size=3.0), 1.0),
        (cases.vector(1, size=3.0), [1.0]),
        (SCOPED, 1.0),
        (GATED, [{"medical": 1.0, "legal": 1.0}]),
    ],
    ids=["one", "row", "scopes", "gate"],
)
def test_streamers_show_the_steered_text(knobs: Any, coefficients: Any) -> None:
    lm, tokenizer = model(), tiny_tokenizer()
    ids = torch.tensor([tokenizer("What is the dose?")["input_ids"]])
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": 8, "pad_token_id": 0}

    def streamed(streamer: Any) -> Any:
        return lm.hf_model.generate(ids, streamer=streamer, **options)[0, ids.shape[1] :]

    plain = tokenizer.decode(streamed(None))
    with lm.steered(knobs, coefficients):
        expected = tokenizer.decode(streamed(None))
        streamed(printed := Printed(tokenizer))
        iterated = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
        thread = Thread(target=streamed, args=(iterated,))
        thread.start()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pieces = list(iterated)
    thread.join()
    assert printed.text == "".join(pieces) == expected != plain


@pytest.mark.parametrize("knobs", [cases.vector(1, size=3.0), SCOPED], ids=["plain", "scoped"])
def test_leaving_while_another_thread_generates_is_warned_of(knobs: Any) -> None:
    lm = model()
    ids = torch.tensor(cases.sequences([(6, 0)]))
    begun, left = Event(), Event()

    class Waiting(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            begun.set()
            left.wait(timeout=60)
            return scores

    options: dict[str, Any] = {"max_new_tokens": 2, "pad_token_id": 0}
    options["logits_processor"] = LogitsProcessorList([Waiting()])
    handle = lm.steered(knobs, 1.0).attach()
    thread = Thread(target=lm.hf_model.generate, args=(ids,), kwargs=options)
    thread.start()
    assert begun.wait(timeout=60)
    with pytest.warns(UserWarning, match="another thread generates"):
        handle.remove()
    left.set()
    thread.join()
    assert not lm.steering
