"""What steers a model can be seen and left, also where the handle was lost."""

import gc
import threading
import weakref

import pytest
import torch

from steer import Model, neutral_text
from steer.algebra import Dense, Vector, Weight
from steer.errors import SteeringError
from tests.conformance import cases
from tests.conformance.cases import PROMPTS, Snapshot, far
from tests.tiny import tiny_model, tiny_tokenizer

KNOBS = cases.knobs(scopes=["all", "response", "last_prompt"])


@pytest.fixture
def lm() -> Model:
    return Model(tiny_model("llama"), tiny_tokenizer())


def dense() -> Vector:
    return Vector({Weight("model.layers.1.mlp.up_proj.weight"): Dense(torch.ones(64, 32) / 8)})


def test_a_lost_handle_is_listed_and_left(lm: Model) -> None:
    plain, before = lm.activations(PROMPTS), Snapshot(lm.hf_model)
    assert lm.steering == ()
    handle = lm.steered(KNOBS, 0.5).attach()
    handle = lm.steered(KNOBS, 0.25).attach()  # the cell is run again
    merged = lm.steered(dense(), 0.3).attach()
    handle.remove()
    lost, also = lm.steering
    assert lost.active
    assert lost.composition.coefficients.tolist() == [[0.5, 0.5, 0.5]]
    assert "Steered(attached)" in repr(lost)
    assert "+0.5" in repr(lost)
    assert also.composition is merged.composition
    far(lm.activations(PROMPTS)[0], plain[0])
    lm.unsteer()
    assert lm.steering == ()
    assert not lost.active
    assert not merged.active
    assert all(map(torch.equal, lm.activations(PROMPTS), plain))
    before.check(lm.hf_model)
    lm.unsteer()  # nothing is left to be left


def test_what_is_listed_is_a_handle_of_the_same_steering(lm: Model) -> None:
    handle = lm.steered(KNOBS, 0.5).attach()
    (listed,) = lm.steering
    listed.update(0.25)
    assert handle.composition.coefficients.tolist() == [[0.25, 0.25, 0.25]]
    changed = lm.activations(PROMPTS)
    listed.remove()
    assert not handle.active
    handle.update(0.75).attach()  # it may be used again, and is no second one
    assert handle.composition.coefficients.tolist() == [[0.75, 0.75, 0.75]]
    far(lm.activations(PROMPTS)[0], changed[0])
    handle.update(0.25)
    assert all(map(torch.equal, lm.activations(PROMPTS), changed))
    handle.remove()
    assert lm.steering == ()


def test_contexts_that_were_left_early_end_quietly(lm: Model) -> None:
    plain, before = lm.logits(PROMPTS[:1], ["No."]), Snapshot(lm.hf_model)
    with lm.steered(KNOBS, 0.5) as handle, lm.steered(dense()):
        lm.unsteer()
        assert not handle.active
        assert torch.equal(lm.logits(PROMPTS[:1], ["No."])[0], plain[0])
        with lm.steered(KNOBS, 0.5):
            assert len(lm.steering) == 1
    before.check(lm.hf_model)


def test_another_wrapper_and_another_thread_see_and_leave_it(lm: Model) -> None:
    again, before = Model(lm.hf_model, lm.tokenizer), Snapshot(lm.hf_model)
    handle = lm.steered(KNOBS, 0.5).attach()
    assert [h.composition for h in again.steering] == [handle.composition]
    thread = threading.Thread(target=again.unsteer)
    thread.start()
    thread.join(timeout=60)
    assert not handle.active
    before.check(lm.hf_model)


def test_the_refusal_names_the_way_out(lm: Model) -> None:
    lm.steered(KNOBS, 0.5).attach()
    with pytest.raises(SteeringError, match="the model is being steered") as caught:
        neutral_text(lm, PROMPTS)
    assert "unsteer()" in str(caught.value)


def test_a_plainly_steered_model_goes_with_a_handle_that_was_lost() -> None:
    """What is listed does not keep the model; a watched call does."""
    hf = tiny_model("llama")
    Model(hf, tiny_tokenizer()).steered(cases.vector(1), 0.5).attach()
    gone = weakref.ref(hf)
    del hf
    gc.collect()
    assert gone() is None


def test_no_gate_given_keeps_the_compositions_own(lm: Model) -> None:
    gate = cases.gate(layer=0)
    knobs = cases.knobs(gate=gate)
    assert lm.steered(knobs, gate=None).composition.gate is gate
    assert lm.steered(knobs.gated(None)).composition.gate is None
    other = cases.gate(layer=0, margin=3)
    assert lm.steered(knobs, gate=other).composition.gate is other
