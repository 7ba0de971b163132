"""Models that a batch would change generate one prompt after the other; others do not."""

import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from steer import Model
from steer.errors import CapabilityError
from steer.model import stream
from tests.conformance import cases
from tests.conformance.cases import PROMPTS
from tests.recurrent import IGNORE_PADDING, tiny_recurrent
from tests.tiny import tiny_model, tiny_tokenizer

ONE_BY_ONE = "generates prompts one by one"
ROWS = [{"medical": 1.0}, {"legal": 1.0}, {}, {"medical": 0.5, "financial": 0.8}]
PARTS = {"git": {"blocks": "git.encoder.layer"}}


def fresh(family: str) -> Model:
    return Model(tiny_recurrent(family), tiny_tokenizer(), **PARTS.get(family, {}))


def rows_run(lm: Model, run: Callable[[], object]) -> set[int]:
    """The numbers of rows with which the model was called."""
    seen: set[int] = set()
    embedding = lm.architecture.embedding
    handle = embedding.register_forward_hook(lambda _m, args, _out: seen.add(len(args[0])))
    run()
    handle.remove()
    return seen


@pytest.mark.parametrize("family", IGNORE_PADDING)
def test_a_row_equals_its_prompt_alone_where_padding_would_change_it(family: str) -> None:
    lm = fresh(family)
    knobs = cases.knobs(scopes=["response", "all[3:]", "prompt"])
    with lm.steered(knobs, ROWS):
        with pytest.warns(UserWarning, match=ONE_BY_ONE):
            together = lm.generate(PROMPTS, max_new_tokens=5)
        with warnings.catch_warnings():  # it is said once
            warnings.simplefilter("error")
            assert lm.generate(PROMPTS, max_new_tokens=5, batch_size=2) == together
    for row, prompt, answer in zip(ROWS, PROMPTS, together, strict=True):
        with lm.steered(knobs, [row]):
            assert lm.generate(prompt, max_new_tokens=5) == answer


@pytest.mark.parametrize("family", ["mamba", "llama"])
def test_other_models_generate_in_one_batch(family: str) -> None:
    hf = tiny_model(family) if family == "llama" else tiny_recurrent(family)
    lm = Model(hf, tiny_tokenizer())
    lm.generate(PROMPTS, max_new_tokens=2)  # tried here
    assert rows_run(lm, lambda: lm.generate(PROMPTS, max_new_tokens=2)) == {len(PROMPTS)}


def test_rows_of_one_length_are_kept_apart_where_they_change_each_other() -> None:
    lm = fresh("rwkv")
    with pytest.warns(UserWarning, match="beside another one"):
        together = lm.generate([PROMPTS[0]] * 2, max_new_tokens=4)
    assert together == [lm.generate(PROMPTS[0], max_new_tokens=4)] * 2


@pytest.mark.parametrize("option", ["num_beams", "num_return_sequences"])
def test_copies_of_a_prompt_are_refused_where_rows_change_each_other(option: str) -> None:
    lm = fresh("rwkv")
    with (
        pytest.warns(UserWarning, match=ONE_BY_ONE),
        pytest.raises(CapabilityError, match=f"{option}=2"),
    ):
        lm.generate(PROMPTS[:1], max_new_tokens=2, do_sample=True, **{option: 2})


def test_several_answers_are_not_streamed_at_once() -> None:
    lm = fresh("xlstm")
    with (
        pytest.warns(UserWarning, match=ONE_BY_ONE),
        pytest.raises(CapabilityError, match="streamed"),
    ):
        stream(lm, PROMPTS, lambda texts: None, max_new_tokens=2)
    told: list[str] = []
    assert stream(lm, PROMPTS[0], told.append, max_new_tokens=3) == told[-1]


def test_what_is_tried_does_not_depend_on_the_steering() -> None:
    lm = Model(tiny_model("llama"), tiny_tokenizer())
    with lm.steered(cases.vector(1, size=1e38), 1.0):  # nothing finite can be compared
        lm.generate(PROMPTS, max_new_tokens=1)
    with lm.steered(cases.knobs(scopes=["response"] * 3), ROWS):  # rows of the call, not of a trial
        steered = lm.generate(PROMPTS, max_new_tokens=4)
    assert steered != lm.generate(PROMPTS, max_new_tokens=4)


def test_another_thread_may_be_the_first_to_generate() -> None:
    lm = Model(tiny_model("llama"), tiny_tokenizer())
    found: dict[str, Any] = {}
    for name, what in {
        "one setting": (cases.knobs(), 1.0),
        "rows": (cases.knobs(), ROWS),
    }.items():
        with lm.steered(*what):
            thread = threading.Thread(
                target=lambda name=name: found.update(
                    {name: lm.generate(PROMPTS, max_new_tokens=3)}
                )
            )
            thread.start()
            thread.join()
            assert found[name] == lm.generate(PROMPTS, max_new_tokens=3)


def test_the_random_state_is_left_alone() -> None:
    lm = Model(tiny_model("llama"), tiny_tokenizer())
    before = torch.random.get_rng_state()
    lm.generate(PROMPTS, max_new_tokens=2)
    assert torch.equal(torch.random.get_rng_state(), before)
