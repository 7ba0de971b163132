"""Contract 2 (in place): leaving restores the model bit for bit, however it is left."""

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers.generation.streamers import BaseStreamer

from steer import Composition
from steer.errors import SteeringError
from tests.conformance import cases
from tests.conformance.cases import Snapshot, far, same_bits
from tests.conformance.engines import EngineFactory
from tests.tiny import FAMILIES

IDS = cases.padded(cases.sequences(), "right")
PLAIN = cases.knobs()(0.8)
SCOPED = cases.knobs(
    ["add", "ablate", "add"],
    ["response", "all", "last_prompt"],
    gate=cases.gate(layer=-1, margin=9),
)([{"medical": 1.0}, {"legal": 1.0}, {"financial": 1.0}, {}])
BOTH = pytest.mark.parametrize("knobs", [PLAIN, SCOPED], ids=["plain", "rows, scopes, gate"])


class Interrupted(BaseStreamer):
    """Raises when it is given its third batch of tokens; can do something before that."""

    def __init__(self, error: BaseException, before: Callable[[], object] = lambda: None) -> None:
        self.calls, self.error, self.before = 0, error, before

    def put(self, value: torch.Tensor) -> None:
        self.calls += 1
        if self.calls == 3:
            self.before()
            raise self.error

    def end(self) -> None:
        pass


def call(lm: Any, **kwargs: Any) -> torch.Tensor:
    """A raw forward of the user's own model."""
    with torch.no_grad():
        return lm.hf_model(**IDS, **kwargs).logits  # type: ignore[no-any-return]


@BOTH
@pytest.mark.parametrize("family", FAMILIES)
def test_leaving_restores_every_family(
    in_place: EngineFactory, family: str, knobs: Composition
) -> None:
    lm = in_place.shared(family)
    plain, before = call(lm), Snapshot(lm.hf_model)
    lengths = {"prompt_lengths": [12, 5, 17, 8]} if knobs.per_row else {}
    with lm.steered(knobs):
        far(call(lm, **lengths), plain)
        lm.hf_model.generate(**_prompts(), max_new_tokens=2, do_sample=False, pad_token_id=0)
    before.check(lm.hf_model)
    assert same_bits(call(lm), plain)


def _prompts(rows: int = 4) -> dict[str, torch.Tensor]:
    batch = cases.padded(cases.sequences()[:rows], "left")
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


@BOTH
def test_state_dict_and_buffers_never_change(in_place: EngineFactory, knobs: Composition) -> None:
    lm = in_place.shared()
    before = {k: v.clone() for k, v in lm.hf_model.state_dict().items()}
    buffers = dict(lm.hf_model.named_buffers())
    with lm.steered(knobs):
        call(lm, prompt_lengths=[12, 5, 17, 8])
        during = lm.hf_model.state_dict()
        assert list(during) == list(before)
        assert all(torch.equal(during[name], value) for name, value in before.items())
        assert dict(lm.hf_model.named_buffers()).keys() == buffers.keys()


@BOTH
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_after_an_exception_in_the_context(
    in_place: EngineFactory, knobs: Composition, error: type[BaseException]
) -> None:
    lm = in_place.shared()
    plain, before = call(lm), Snapshot(lm.hf_model)
    with pytest.raises(error), lm.steered(knobs):
        raise error
    before.check(lm.hf_model)
    assert same_bits(call(lm), plain)


@BOTH
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("inside", [True, False], ids=["left by it", "caught inside"])
def test_after_an_exception_in_the_middle_of_a_forward(
    in_place: EngineFactory, knobs: Composition, error: type[BaseException], inside: bool
) -> None:
    lm = in_place.shared()
    plain, before = call(lm), Snapshot(lm.hf_model)
    lengths = {"prompt_lengths": [12, 5, 17, 8]}
    with lm.steered(knobs):
        expected = call(lm, **lengths)

    def fail(*_: object) -> None:
        raise error

    def interrupted() -> None:
        handle = lm.architecture.blocks[2].register_forward_hook(fail)
        try:
            call(lm, **lengths)
        finally:
            handle.remove()

    if inside:
        with pytest.raises(error), lm.steered(knobs):
            interrupted()
    else:
        with lm.steered(knobs):
            with pytest.raises(error):
                interrupted()
            assert same_bits(call(lm, **lengths), expected)
    before.check(lm.hf_model)
    assert same_bits(call(lm), plain)


@BOTH
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_exception_in_the_middle_of_generate(
    in_place: EngineFactory, knobs: Composition, error: type[BaseException]
) -> None:
    lm = in_place.shared()
    plain, before = call(lm), Snapshot(lm.hf_model)
    one = knobs([{"medical": 1.0}]) if knobs.per_row else knobs
    options = {**_prompts(1), "max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    with lm.steered(one):
        expected = lm.hf_model.generate(**options)
    with lm.steered(one):
        streamer = Interrupted(error())
        with pytest.raises(error):
            lm.hf_model.generate(**options, streamer=streamer)
        assert streamer.calls == 3
        assert torch.equal(lm.hf_model.generate(**options), expected)
    before.check(lm.hf_model)
    assert same_bits(call(lm), plain)


@BOTH
def test_removed_in_the_middle_of_generate(in_place: EngineFactory, knobs: Composition) -> None:
    lm = in_place.shared()
    plain, before = call(lm), Snapshot(lm.hf_model)
    handle = lm.steered(knobs([{"medical": 1.0}]) if knobs.per_row else knobs).attach()
    with pytest.raises(StopIteration):
        lm.hf_model.generate(
            **_prompts(1),
            max_new_tokens=6,
            pad_token_id=0,
            streamer=Interrupted(StopIteration(), before=handle.remove),
        )
    before.check(lm.hf_model)
    assert same_bits(call(lm), plain)


@BOTH
def test_after_a_failed_entry(
    in_place: EngineFactory, knobs: Composition, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = in_place.shared()
    plain, before = call(lm), Snapshot(lm.hf_model)
    handle = lm.steered(knobs)

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no hook here")

    with monkeypatch.context() as patch:
        patch.setattr(lm.architecture.blocks[2], "register_forward_hook", refuse)
        with pytest.raises(RuntimeError, match="no hook here"), handle:
            raise AssertionError("the body must not run")
    assert not handle.active
    before.check(lm.hf_model)
    assert same_bits(call(lm), plain)
    with lm.steered(knobs):
        far(call(lm, prompt_lengths=[12, 5, 17, 8]), plain)


@BOTH
def test_a_failed_inner_entry_leaves_the_outer_as_it_was(
    in_place: EngineFactory, knobs: Composition, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = in_place.shared()
    lengths = {"prompt_lengths": [12, 5, 17, 8]}
    before = Snapshot(lm.hf_model)
    real = nn.Module.register_forward_hook
    with lm.steered(knobs):
        expected = call(lm, **lengths)
        calls: list[None] = []

        def refuse(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            calls.append(None)
            if len(calls) == 3:
                raise RuntimeError("no hook here")
            return real(module, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(nn.Module, "register_forward_hook", refuse)
            with pytest.raises(RuntimeError, match="no hook here"):
                lm.steered(cases.vector(0, 1, 2, 3)).attach()
        assert same_bits(call(lm, **lengths), expected)
    before.check(lm.hf_model)


def test_users_own_hooks_and_patches_stay(in_place: EngineFactory) -> None:
    lm = in_place.fresh()
    seen: list[torch.Tensor] = []
    block = lm.architecture.blocks[1]
    block.register_forward_hook(lambda _m, _a, out: seen.append(out))
    real = lm.hf_model.generate
    lm.hf_model.generate = lambda *args, **kwargs: real(*args, **kwargs)
    before = Snapshot(lm.hf_model)
    with lm.steered(SCOPED):
        call(lm, prompt_lengths=[12, 5, 17, 8])
        lm.hf_model.generate(**_prompts(), max_new_tokens=2, pad_token_id=0)
    before.check(lm.hf_model)
    plain = call(lm)
    assert len(seen) == 4  # one forward, two steps of generate, one forward
    assert plain.shape[0] == 4


def test_a_model_that_was_steered_can_be_freed(in_place: EngineFactory) -> None:
    lm = in_place.fresh()
    with lm.steered(SCOPED):
        call(lm, prompt_lengths=[12, 5, 17, 8])
    alive = weakref.ref(lm.hf_model)
    del lm
    gc.collect()
    assert alive() is None


@BOTH
def test_a_steered_model_is_not_copied_with_what_steers_it(
    in_place: EngineFactory, knobs: Composition
) -> None:
    """A copy would keep the hooks for good, and its forward would run this model."""
    lm = in_place.shared()
    with lm.steered(knobs):
        for copying in (copy.deepcopy, pickle.dumps):
            with pytest.raises(SteeringError, match="copied or pickled while it is steered"):
                copying(lm.hf_model)
        with lm.steered(cases.vector(-1)), pytest.raises(SteeringError, match="copied"):
            copy.deepcopy(lm.hf_model)
    assert same_bits(copy.deepcopy(lm.hf_model)(**IDS).logits, call(lm))


def test_a_handle_is_attached_once_at_a_time(in_place: EngineFactory) -> None:
    lm = in_place.shared()
    before = Snapshot(lm.hf_model)
    with lm.steered(PLAIN) as handle:
        with pytest.raises(SteeringError, match="attached already"):
            handle.attach()
        assert handle.active
        with pytest.raises(SteeringError, match="one setting and rows"):
            handle.update([{}])
    before.check(lm.hf_model)
    with handle:
        assert handle.active
    before.check(lm.hf_model)


def test_capture_hooks_of_transformers_stay_and_work(in_place: EngineFactory) -> None:
    lm = in_place.fresh()
    plain = lm.hf_model(**IDS, output_hidden_states=True).hidden_states
    with lm.steered(PLAIN):
        lm.hf_model(**IDS, output_hidden_states=True)
    after = lm.hf_model(**IDS, output_hidden_states=True).hidden_states
    assert all(map(same_bits, plain, after))


def test_nothing_is_written_into_the_users_tensors(in_place: EngineFactory) -> None:
    lm = in_place.shared()
    embedded = lm.hf_model.get_input_embeddings()(IDS["input_ids"]).detach()
    kept = embedded.clone()
    with torch.no_grad(), lm.steered(cases.vector(-1, 0, 1)):
        lm.hf_model(inputs_embeds=embedded, attention_mask=IDS["attention_mask"])
    assert same_bits(embedded, kept)
