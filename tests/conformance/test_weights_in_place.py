"""Weight sites and mixtures in raw calls of the user's own model: contracts 1 to 7 and 10."""

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steer import Composition, Dense, Vector, Weight
from steer.errors import (
    BusyModelError,
    CapabilityError,
    CompositionError,
    MergeError,
    ScopeError,
    SteeringError,
)
from tests.conformance import cases, reference
from tests.conformance.cases import KINDS, ROWS, SCOPES, Snapshot, close, far, padded, same_bits
from tests.conformance.engines import ENGINES, IN_PLACE, EngineFactory
from tests.conformance.test_leaving import IDS, call
from tests.conformance.test_raw_forward import COEFFICIENTS, LENGTHS, check, forward
from tests.conformance.test_raw_generate import check as check_generation
from tests.conformance.test_raw_generate import generate
from tests.conformance.test_threads import in_thread
from tests.tiny import FAMILIES
from tests.weights import everywhere

MIXED = (["add", "ablate", "add"], ["response", "all", "last_prompt"])
SETTINGS: dict[str, Any] = {"one setting": 0.8, "rows": COEFFICIENTS}


def knobs_of(lm: Any, kind: str, setting: str) -> Composition:
    if setting == "one setting":
        return cases.mixed(lm, kind)(0.8)
    return cases.mixed(lm, kind, *MIXED, gate=cases.gate(layer=1, margin=9))(COEFFICIENTS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_row_of_a_padded_call_equals_the_textbook(
    in_place: EngineFactory, family: str, side: str, kind: str
) -> None:
    lm = in_place.shared(family)
    check(lm, cases.mixed(lm, kind, *MIXED)(COEFFICIENTS), side, list(ROWS))


@settings(max_examples=10)
@given(data=st.data())
@pytest.mark.parametrize("name", IN_PLACE)
def test_any_mixture_on_any_padded_batch_equals_the_textbook(
    name: str, data: st.DataObject
) -> None:
    lm = ENGINES[name].shared()
    rows = data.draw(
        st.lists(st.tuples(st.integers(1, 12), st.integers(0, 9)), min_size=1, max_size=4)
    )
    scopes = [data.draw(st.sampled_from(SCOPES)) for _ in range(3)]
    margin = data.draw(st.sampled_from([0.0, 0.5, 99.0]))
    gate = cases.gate(layer=1, margin=margin) if data.draw(st.booleans()) else None
    strength = st.fixed_dictionaries(
        dict.fromkeys(cases.DOMAINS, st.sampled_from([0.0, 0.25, -0.5, 1.0]))
    )
    knobs = cases.mixed(lm, data.draw(st.sampled_from(KINDS)), scopes=scopes, gate=gate)
    coefficients = data.draw(st.lists(strength, min_size=len(rows), max_size=len(rows)))
    check(lm, knobs(coefficients), data.draw(st.sampled_from(["left", "right"])), rows)


@pytest.mark.parametrize("kind", KINDS)
def test_a_nest_of_kinds_equals_the_textbook(in_place: EngineFactory, kind: str) -> None:
    lm, rows = in_place.shared(), list(ROWS)
    inner = cases.mixed(lm, kind, scopes=["prompt", "all", "response[:18]"])(COEFFICIENTS)
    gated = cases.knobs(*MIXED, gate=cases.gate(layer=0, margin=0.5))(COEFFICIENTS[::-1])
    ids = cases.sequences(rows)
    far_off = cases.mixed(lm, kind, size=2.0, gate=cases.gate(layer=1, margin=9))(COEFFICIENTS)
    nests = ([gated, inner], [inner, gated], [inner, inner], [gated, far_off], [far_off, gated])
    for nest in nests:
        bound = cases.displaced_bound(2.0 if any(c is far_off for c in nest) else 0.3)
        with lm.steered(nest[0]), lm.steered(nest[1]):
            found = forward(lm, padded(ids, "right"), prompt_lengths=LENGTHS)
        for r, row in enumerate(ids):
            run = reference.run(lm.hf_model, row, [(c, r) for c in nest], rows[r][0])
            close(found[r], run.logits, bound)


WAYS: dict[str, dict[str, Any]] = {
    "cache": {},
    "no cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static"},
}


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_ways_to_decode(in_place: EngineFactory, way: str, gated: bool) -> None:
    lm = in_place.shared()
    gate = cases.gate(layer=1, margin=1.0) if gated else None
    knobs = cases.mixed(lm, "both", *MIXED, gate=gate)(COEFFICIENTS)
    with lm.steered(knobs):
        out = generate(lm, **WAYS[way])
    check_generation(lm, knobs, out)


@pytest.mark.parametrize("scope", SCOPES)
def test_chunked_prefill(in_place: EngineFactory, scope: str) -> None:
    from transformers import DynamicCache

    lm = in_place.shared()
    knobs = cases.mixed(lm, "both", scopes=[scope] * 3)(COEFFICIENTS)
    with lm.steered(knobs):
        out = generate(lm, prefill_chunk_size=4, past_key_values=DynamicCache())
    check_generation(lm, knobs, out)
    gated = knobs.gated(cases.gate(layer=1))
    with lm.steered(gated), pytest.raises(CapabilityError, match="prefill_chunk_size"):
        generate(lm, prefill_chunk_size=4, past_key_values=DynamicCache())


@pytest.mark.parametrize("keep", [1, 4, torch.tensor([0, 7, 20])])
def test_the_unembedding_of_some_columns_only(in_place: EngineFactory, keep: Any) -> None:
    lm = in_place.shared()
    knobs = cases.mixed(lm, "weights", scopes=["response[:18]"] * 3)(COEFFICIENTS)
    batch = padded(cases.sequences(), "right")
    kept = slice(-keep, None) if isinstance(keep, int) else keep
    with torch.no_grad(), lm.steered(knobs):
        whole = lm.hf_model(**batch, prompt_lengths=LENGTHS).logits
        some = lm.hf_model(**batch, prompt_lengths=LENGTHS, logits_to_keep=keep).logits
    close(some, whole[:, kept])


def test_guidance_and_bare_forwards_are_refused_where_scopes_matter(
    in_place: EngineFactory,
) -> None:
    lm = in_place.shared()
    with lm.steered(cases.mixed(lm, "weights", scopes=["response"] * 3)):
        with pytest.raises(CapabilityError, match="guidance"):
            generate(lm, guidance_scale=1.5)
        with pytest.raises(ScopeError, match="prompt_lengths"):
            call(lm)
        with pytest.raises(ScopeError, match="outside the model's own forward"):
            lm.architecture.body(**IDS)
    with torch.no_grad(), lm.steered(cases.mixed(lm, "weights")):
        lm.architecture.body(**IDS)  # one setting for everything needs no call


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_leaving_restores_every_family(
    in_place: EngineFactory, family: str, kind: str, setting: str
) -> None:
    lm = in_place.shared(family)
    plain, before = call(lm), Snapshot(lm.hf_model)
    lengths = {"prompt_lengths": LENGTHS} if setting == "rows" else {}
    with lm.steered(knobs_of(lm, kind, setting)):
        far(call(lm, **lengths), plain)
        during = lm.hf_model.state_dict()
        assert list(during) == list(before.state)
        assert all(same_bits(during[name], value) for name, value in before.state.items())
    before.check(lm.hf_model)
    assert same_bits(call(lm), plain)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_exception_in_the_middle_of_a_forward(
    in_place: EngineFactory, setting: str, error: type[BaseException]
) -> None:
    lm = in_place.shared()
    plain, before = call(lm), Snapshot(lm.hf_model)
    lengths = {"prompt_lengths": LENGTHS} if setting == "rows" else {}
    other = padded(cases.sequences(seed=8), "right")

    def fail(*_: object) -> None:
        raise error

    with lm.steered(knobs_of(lm, "both", setting)):
        expected = forward(lm, other, **lengths)
        block: Any = lm.architecture.blocks[2]
        handle = block.self_attn.k_proj.register_forward_hook(fail)  # queries done, values not
        with pytest.raises(error):
            call(lm, **lengths)
        handle.remove()
        assert all(map(same_bits, forward(lm, other, **lengths), expected))
    before.check(lm.hf_model)
    assert same_bits(call(lm), plain)


def test_after_a_failed_entry(in_place: EngineFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = in_place.shared()
    plain, before = call(lm), Snapshot(lm.hf_model)
    calls: list[None] = []

    def refuse(*args: Any) -> Any:
        calls.append(None)
        if len(calls) == 5:
            raise RuntimeError("no patch here")
        return real(*args)

    from steer.engine._weights import displaced

    real = displaced.replace
    with monkeypatch.context() as patch:
        patch.setattr(displaced, "replace", refuse)
        handle = lm.steered(cases.mixed(lm, "both"))
        with pytest.raises(RuntimeError, match="no patch here"):
            handle.attach()
    assert not handle.active
    before.check(lm.hf_model)
    assert same_bits(call(lm), plain)


def test_a_model_that_was_steered_can_be_freed_and_one_that_is_steered_not_copied(
    in_place: EngineFactory,
) -> None:
    lm = in_place.fresh()
    with lm.steered(cases.mixed(lm, "both")(COEFFICIENTS)):
        call(lm, prompt_lengths=LENGTHS)
        for copying in (copy.deepcopy, pickle.dumps):
            with pytest.raises(SteeringError, match="copied or pickled while it is steered"):
                copying(lm.hf_model)
    alive = weakref.ref(lm.hf_model)
    del lm
    gc.collect()
    assert alive() is None


def test_threads_and_models_keep_apart(in_place: EngineFactory) -> None:
    lm, other = in_place.fresh(), in_place.fresh()
    knobs = cases.mixed(lm, "both")(COEFFICIENTS)
    plain, before = call(other), Snapshot(other.hf_model)

    def busy() -> None:
        with pytest.raises(BusyModelError):
            lm.steered(knobs).attach()

    with lm.steered(knobs):
        expected = call(lm)
        in_thread(busy)
        assert same_bits(call(other), plain)
        before.check(other.hf_model)
        assert same_bits(in_thread(lambda: call(lm)), expected)
    in_thread(lambda: lm.steered(knobs).attach().remove())


def test_a_users_hook_on_a_displaced_module_sees_the_displaced_output(
    in_place: EngineFactory,
) -> None:
    lm = in_place.shared()
    block: Any = lm.architecture.blocks[0]
    seen: list[torch.Tensor] = []
    handle = block.mlp.up_proj.register_forward_hook(lambda _m, _a, out: seen.append(out))
    knobs = cases.mixed(lm, "weights")
    try:
        call(lm)
        with lm.steered(knobs):
            call(lm)
    finally:
        handle.remove()
    far(seen[1], seen[0])


def test_gradients_flow_and_inference_mode_before_does_no_harm(in_place: EngineFactory) -> None:
    lm = in_place.fresh()
    batch = padded(cases.sequences(), "right")

    def gradient(inference_first: bool) -> torch.Tensor:
        lm.hf_model.zero_grad()
        with lm.steered(cases.mixed(lm, "both", *MIXED)(COEFFICIENTS)):
            if inference_first:
                with torch.inference_mode():
                    lm.hf_model(**batch, prompt_lengths=LENGTHS)
            lm.hf_model(**batch, prompt_lengths=LENGTHS).logits.square().sum().backward()
        block: Any = lm.architecture.blocks[0]
        return block.mlp.down_proj.weight.grad.clone()  # type: ignore[no-any-return]

    first = gradient(inference_first=False)
    assert first.isfinite().all()
    assert torch.equal(gradient(inference_first=True), first)


def test_updating_equals_attaching_anew(in_place: EngineFactory) -> None:
    lm = in_place.shared(dtype=torch.bfloat16)
    for first, second in ((1.0, 0.25), (COEFFICIENTS, COEFFICIENTS[::-1])):
        with lm.steered(cases.mixed(lm, "both"), first) as handle:
            with torch.inference_mode():
                far(call(lm), call(lm) * 0 + 1)
            handle.update(second)
            found = call(lm)
        with lm.steered(cases.mixed(lm, "both"), second):
            assert same_bits(call(lm), found)


def test_an_update_that_fails_changes_nothing(in_place: EngineFactory) -> None:
    """A dense matrix is merged; at a coefficient of 1e6 its sum exceeds float16."""
    lm = in_place.fresh(dtype=torch.float16)
    name = "model.layers.1.mlp.up_proj.weight"
    dense = Vector({Weight(name): Dense(torch.ones(64, 32, dtype=torch.float16))})
    both = Vector({**dense.terms, **cases.vector(1, 2).terms})
    plain, before = lm.hf_model(**IDS).logits, Snapshot(lm.hf_model)
    with lm.steered(both, 0.5) as handle:
        steered = lm.hf_model(**IDS).logits
        far(steered, plain)
        with pytest.raises(MergeError):
            handle.update(1e6)
        assert handle.composition.coefficients.tolist() == [[0.5]]
        assert same_bits(lm.hf_model(**IDS).logits, steered)
        handle.update(0.0)
        assert same_bits(lm.hf_model(**IDS).logits, plain)
    before.check(lm.hf_model)


@pytest.mark.parametrize("c", [1e5, -1e5, 1e-9, [0.0, 1e5, 0.0, 0.0]])
@pytest.mark.parametrize("leaf", ["mlp.up_proj.weight", "input_layernorm.weight"])
def test_a_coefficient_that_the_dtype_cannot_hold_is_refused(
    in_place: EngineFactory, leaf: str, c: Any
) -> None:
    lm = in_place.shared(dtype=torch.float16)
    name = f"model.layers.1.{leaf}"
    v = everywhere(lm.hf_model, keep=lambda found: found == name)
    dense = Vector({Weight("model.layers.2.mlp.up_proj.weight"): Dense(torch.ones(64, 32))})
    both = Vector({**v.terms, **dense.terms})
    plain, given = call(lm), [{"vector": x} for x in c] if isinstance(c, list) else c
    with pytest.raises(CompositionError, match="float16 cannot hold"):
        lm.steered(v, given, weights="hook").attach()
    assert same_bits(call(lm), plain)
    with lm.steered(both, 0.5) as handle:  # the dense matrix is merged
        steered = call(lm)
        far(steered, plain)
        with pytest.raises(CompositionError, match="float16 cannot hold"):
            handle.update(1e-9)
        assert same_bits(call(lm), steered)
        handle.update(0.0)
        assert same_bits(call(lm), plain)
    for kept in (65504.0, -6e-8, 0.0):
        with lm.steered(1e-6 * v, kept, weights="hook") as handle:
            assert handle.active
