"""Contract 8: what does not fit a model is refused; `strict=False` lets only fingerprints pass.

And contract 9 as far as engines are concerned: what `Vector.load` gives can be steered with.
"""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.normalizers import Lowercase

from steer import Dense, Direction, DomainGate, LowRank, Residual, Vector, Weight, compose
from steer.algebra import ModelInfo, Provenance
from steer.errors import CapabilityError, FitError
from tests.conformance import cases
from tests.conformance.cases import PROMPTS
from tests.conformance.engines import EngineFactory

PROJECTION = "model.layers.0.self_attn.q_proj.weight"


def made_for(vector: Vector, model: ModelInfo) -> Vector:
    return replace(vector, provenance=Provenance(model=model))


def _other(info: ModelInfo, field: str) -> ModelInfo:
    """The same model but for one fingerprint."""
    values: dict[str, Any] = {field: "0" * 64, "model_id": "elsewhere"}
    return replace(info, **values)


@pytest.mark.parametrize("strict", [True, False])
def test_another_width_is_refused(engine_factory: EngineFactory, strict: bool) -> None:
    with pytest.raises(FitError, match=r"width 33.*\n.*width 32"):
        engine_factory.shared().steered(Vector.of({1: torch.ones(33)}), strict=strict)


@pytest.mark.parametrize("strict", [True, False])
def test_a_layer_that_does_not_exist_is_refused(
    engine_factory: EngineFactory, strict: bool
) -> None:
    lm = engine_factory.shared()
    with pytest.raises(FitError, match=r"layers up to 4.*\n.*layers 0 to 3"):
        lm.steered(cases.vector(1, 4), strict=strict)
    lm.steered(cases.vector(-1, 3), strict=strict)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    "gate",
    [
        DomainGate(("v",), torch.ones(1, 33), 0),
        DomainGate(("v",), torch.ones(1, cases.WIDTH), cases.LAYERS),
    ],
    ids=["width", "layer"],
)
def test_a_gate_that_does_not_fit_is_refused(
    engine_factory: EngineFactory, gate: DomainGate, strict: bool
) -> None:
    vector = Vector({Weight(PROJECTION): Dense(torch.ones(32, 32))})
    with pytest.raises(FitError, match="the gate does not fit"):
        engine_factory.shared().steered(compose(v=vector, gate=gate), strict=strict)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("name", "shape", "found"),
    [
        (PROJECTION, (32, 31), r"\(32, 32\)"),
        (PROJECTION.replace("q_proj", "w_proj"), (32, 32), "no such parameter"),
    ],
    ids=["shape", "name"],
)
def test_weights_that_do_not_fit_are_refused(
    engine_factory: EngineFactory, name: str, shape: tuple[int, int], found: str, strict: bool
) -> None:
    for term in (
        Dense(torch.ones(shape)),
        LowRank(torch.ones(shape[0], 2), torch.ones(2, shape[1])),
    ):
        with pytest.raises(FitError, match=found):
            engine_factory.shared().steered(Vector({Weight(name): term}), strict=strict)


@pytest.mark.parametrize(
    ("field", "name"),
    [("config", "configuration"), ("tokenizer", "tokenizer"), ("template", "chat template")],
)
def test_another_fingerprint_is_refused_and_without_strict_warned_of(
    engine_factory: EngineFactory, field: str, name: str
) -> None:
    lm = engine_factory.shared()
    other = made_for(cases.vector(1), _other(lm.info, field))
    with pytest.raises(FitError, match=rf"another {name}\n.*elsewhere"):
        lm.steered(other)
    with pytest.warns(UserWarning, match=rf"another {name}"):
        handle = lm.steered(other, strict=False)
    with handle:
        steered = lm.logits(PROMPTS[:1], ["No."])[0]
    with lm.steered(cases.vector(1)):
        assert torch.equal(lm.logits(PROMPTS[:1], ["No."])[0], steered)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with lm.steered(other.for_model(lm.info)):
            assert torch.equal(lm.logits(PROMPTS[:1], ["No."])[0], steered)


def test_a_vector_for_this_model_must_still_have_its_width(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    other = made_for(Vector.of({1: torch.ones(33)}), _other(lm.info, "config"))
    with pytest.raises(FitError, match=r"width 33.*\n.*width 32"):
        lm.steered(other.for_model(lm.info))


def test_a_real_difference_of_models_changes_the_fingerprint(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    own = made_for(cases.vector(1), lm.info)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lm.steered(own)
        engine_factory.fresh(seed=5).steered(own)  # other weights of the same model: a fine-tune
    wider = engine_factory.fresh(num_key_value_heads=4)
    with pytest.raises(FitError, match="configuration"):
        wider.steered(own)
    talking = engine_factory.fresh()
    talking.tokenizer.chat_template += " "
    with pytest.raises(FitError, match="chat template"):
        talking.steered(own)
    reading = engine_factory.fresh()
    reading.tokenizer.add_tokens(["dose"])
    with pytest.raises(FitError, match="tokenizer"):
        reading.steered(own)


def test_a_tokenizer_that_changes_later_is_noticed(engine_factory: EngineFactory) -> None:
    def changes() -> Iterator[tuple[str, Any]]:
        yield "chat template", lambda t: setattr(t, "chat_template", t.chat_template + " ")
        yield "tokenizer", lambda t: t.add_tokens(["dose"])
        yield "tokenizer", lambda t: setattr(t.backend_tokenizer, "normalizer", Lowercase())

    for name, change in changes():
        lm = engine_factory.fresh()
        own = made_for(cases.vector(1), lm.info)
        lm.steered(own)
        assert lm.info is lm.info
        change(lm.tokenizer)
        with pytest.raises(FitError, match=rf"another {name}\n"):
            lm.steered(own)


def test_a_refused_vector_leaves_the_model_usable(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    plain = lm.logits(PROMPTS[:1], ["No."])[0]
    with pytest.raises(FitError):
        lm.steered(Vector.of({9: torch.ones(cases.WIDTH)}))
    assert torch.equal(lm.logits(PROMPTS[:1], ["No."])[0], plain)


def test_what_load_returns_can_be_steered_with(
    engine_factory: EngineFactory, tmp_path: Path
) -> None:
    lm = engine_factory.shared()
    own = made_for(cases.vector(1, 2), lm.info)
    own.save(tmp_path / "v.safetensors")
    with lm.steered(own, 0.7):
        expected = lm.logits(PROMPTS, ["No."] * 4)
    with lm.steered(Vector.load(tmp_path / "v.safetensors"), 0.7):
        assert all(map(torch.equal, lm.logits(PROMPTS, ["No."] * 4), expected))


def test_what_is_not_declared_is_refused_and_what_is_declared_works(
    engine_factory: EngineFactory,
) -> None:
    lm = engine_factory.shared()
    weights = Vector({Weight(PROJECTION): LowRank(torch.ones(32, 1), torch.ones(1, 32))})
    both = Vector({**weights.terms, Residual(1): Direction(torch.ones(cases.WIDTH))})
    asked = {
        "weights": [lm.steered(weights), lm.steered(both)],
        "scopes": [lm.steered(cases.knobs(scopes=["response", "prompt", "all[3:]"]))],
        "rows": [lm.steered(cases.knobs(), [{"medical": 1.0}])],
        "gate": [lm.steered(cases.knobs(gate=cases.gate()))],
    }
    plain = lm.logits(PROMPTS[:1], ["No."])[0]
    for capability, handles in asked.items():
        for handle in handles:
            if capability in engine_factory.capabilities:
                with handle:
                    lm.logits(PROMPTS[:1], ["No."])
            else:
                with pytest.raises(CapabilityError):
                    handle.attach()
                assert not handle.active
            assert torch.equal(lm.logits(PROMPTS[:1], ["No."])[0], plain), capability
