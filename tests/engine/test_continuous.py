"""Continuous batching: blocks kept between requests never outlive the steering they come from."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

from steer import Model
from steer.errors import CapabilityError
from tests.conformance import cases
from tests.tiny import tiny_model, tiny_tokenizer

PROMPTS = cases.sequences([(12, 0), (5, 0), (17, 0), (8, 0)])
V = cases.vector(1, size=3.0)
NEW = 6
GREEDY = GenerationConfig(max_new_tokens=NEW, do_sample=False, eos_token_id=-1, pad_token_id=0)


def model() -> Model:
    return Model(tiny_model("llama"), tiny_tokenizer())


def small(**options: Any) -> ContinuousBatchingConfig:
    return ContinuousBatchingConfig(page_size=4, num_blocks=64, max_batch_tokens=64, **options)


def together(lm: Model, **options: Any) -> list[list[int]]:
    out = lm.hf_model.generate_batch(PROMPTS, GREEDY, small(), **options)
    return [answer.generated_tokens for answer in out.values()]


def alone(lm: Model) -> list[list[int]]:
    return [
        lm.hf_model.generate(torch.tensor([p]), generation_config=GREEDY)[0, len(p) :].tolist()
        for p in PROMPTS
    ]


@contextmanager
def running(lm: Model, **options: Any) -> Iterator[Any]:
    manager = lm.hf_model.init_continuous_batching(GREEDY, small(**options))
    manager.start()
    try:
        yield manager
    finally:
        if manager.is_running():
            manager.stop()


def ask(manager: Any) -> list[list[int]]:
    names = manager.add_requests(PROMPTS, max_new_tokens=NEW)
    found: dict[str, Any] = {}
    while len(found) < len(PROMPTS) and manager.is_running():
        answer = manager.get_result(timeout=1)
        if answer is not None and answer.is_finished():
            found[answer.request_id] = answer
    return [found[name].generated_tokens for name in names]


@pytest.mark.parametrize("kind", ["residual", *cases.KINDS])
def test_one_setting_for_all_requests_is_right(kind: str) -> None:
    lm = model()
    plain = alone(lm)
    assert together(lm) == plain
    with lm.steered(V if kind == "residual" else cases.mixed(lm, kind), 1.0):
        steered = together(lm)
        assert steered == alone(lm)
    assert steered != plain
    assert together(lm) == plain


@pytest.mark.parametrize("change", ["enter", "update", "nest", "leave"])
def test_a_manager_that_is_kept_does_not_keep_blocks_of_another_steering(change: str) -> None:
    lm = model()
    handle = lm.steered(V)
    if change != "enter":
        handle.attach()
    before = together(lm, persistent_manager=True)
    assert before == alone(lm)
    if change == "enter":
        handle.attach()
    elif change == "update":
        handle.update(-1.0)
    elif change == "nest":
        lm.steered(cases.vector(2, size=3.0)).attach()
    else:
        handle.remove()
    after = together(lm, persistent_manager=True)
    assert after == alone(lm)
    assert after != before
    lm.unsteer()
    assert together(lm) == alone(lm)


def test_a_running_manager_refuses_the_beginning_of_steering() -> None:
    lm = model()
    plain = alone(lm)
    with running(lm) as manager:
        with pytest.raises(CapabilityError, match="continuous batching is running"):
            lm.steered({"medical": V}, [{"medical": 1.0}]).attach()
        assert not lm.steering
        assert ask(manager) == plain


def test_a_running_manager_takes_other_coefficients_only_if_it_shares_no_blocks() -> None:
    lm = model()
    with lm.steered(V) as handle:
        with running(lm) as manager:
            ask(manager)
            with pytest.raises(CapabilityError, match="allow_block_sharing=False"):
                handle.update(-1.0)
            assert ask(manager) == alone(lm)
        with running(lm, allow_block_sharing=False) as manager:
            first = ask(manager)
            handle.update(-1.0)
            assert ask(manager) == alone(lm) != first


def test_a_manager_that_runs_when_steering_ends_is_stopped() -> None:
    lm = model()
    plain = alone(lm)
    with lm.steered(V) as handle, running(lm) as manager:
        ask(manager)
        with pytest.warns(UserWarning, match="continuous batching was running"):
            handle.remove()
        assert not manager.is_running()
    assert together(lm) == plain


@pytest.mark.parametrize("scope", ["all", "response"])
def test_a_manager_made_before_and_started_after_is_refused_for_rows_and_scopes(scope: str) -> None:
    lm = model()
    manager = lm.hf_model.init_continuous_batching(GREEDY, small())
    rows = [{"medical": 1.0}] if scope == "all" else 1.0
    with lm.steered({"medical": V}, rows, scope=scope):
        manager.start()
        manager.add_requests(PROMPTS, max_new_tokens=NEW)
        answers = [manager.get_result(timeout=20) for _ in PROMPTS]
        manager.stop()
    assert all("mixes prompts in one row" in answer.error for answer in answers)
