"""Contract 5 for models that carry a state from token to token instead of keys and values."""

from functools import cache
from typing import Any

import pytest
import torch

from steer import Composition, Model, Part, compose
from steer.algebra import parse_scope
from steer.errors import CapabilityError
from steer.network import encode_prompt
from tests.conformance import cases, reference
from tests.conformance.cases import PROMPTS, SCOPES, close
from tests.conformance.engines import ENGINES, EngineFactory
from tests.recurrent import STATEFUL, tiny_recurrent
from tests.tiny import tiny_tokenizer
from tests.weights import everywhere

STEPS = 4
STATE = {"rwkv": "state"}  # the argument that hands it over; `cache_params` elsewhere
BY_HAND = tuple(family for family in STATEFUL if family != "recurrent_gemma")


@cache
def model(engine: str, family: str) -> Model:
    return ENGINES[engine].wrap(tiny_recurrent(family), tiny_tokenizer())


def ids() -> torch.Tensor:
    return torch.tensor(cases.sequences([(9, 3)]))


def before_its_gate(lm: Model) -> Composition:
    """Residual sites, and the embedding's weights, which the prompt meets before the gate."""
    residual = cases.knobs(scopes=["response", "prompt", "all[10:]"]).parts
    table = everywhere(lm.hf_model, keep=lambda name: "embed" in name)
    parts = {**residual, "legal": Part(table, scope=parse_scope("response"))}
    return compose(parts, gate=cases.gate(layer=0, margin=1.0))


@pytest.mark.filterwarnings("ignore:.*which nnsight already serves")
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("family", STATEFUL)
def test_a_scope_means_the_same_tokens_while_generating(
    engine_factory: EngineFactory, family: str, scope: str
) -> None:
    lm = model(engine_factory.name, family)
    knobs = cases.knobs(["add", "ablate", "add"], [scope] * 3)({"medical": 1.0, "legal": 0.5})
    prompt = encode_prompt(lm.tokenizer, PROMPTS[0])
    new, _ = reference.greedy(lm.hf_model, prompt, [(knobs, 0)], STEPS)
    ends = [k for k, token in enumerate(new) if token == lm.hf_model.config.eos_token_id]
    expected = lm.tokenizer.decode(new[: ends[0] if ends else None], skip_special_tokens=True)
    with lm.steered(knobs):
        answer = lm.generate(PROMPTS[0], max_new_tokens=STEPS)
    assert answer == expected


@pytest.mark.parametrize("options", [{}, {"use_cache": False}], ids=["state", "no state"])
@pytest.mark.parametrize("family", STATEFUL)
def test_logits_while_generating_are_those_of_full_forwards(
    in_place: EngineFactory, family: str, options: dict[str, Any]
) -> None:
    lm, prompt = model(in_place.name, family), ids()[:, :9]
    knobs = before_its_gate(lm)([{"medical": 1.0, "legal": 0.5, "financial": 1.0}])
    with lm.steered(knobs):
        out = lm.hf_model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=STEPS,
            min_new_tokens=STEPS,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
            **options,
        )
    whole = out.sequences[0].tolist()
    for step, logits in enumerate(out.logits):
        expected = reference.run(lm.hf_model, whole[: 9 + step], [(knobs, 0)], 9).logits[-1]
        close(logits[0], expected)


@pytest.mark.parametrize("family", BY_HAND)
def test_a_state_that_tells_no_length_is_refused_in_a_bare_call(
    in_place: EngineFactory, family: str
) -> None:
    lm, name = model(in_place.name, family), STATE.get(family, "cache_params")
    with torch.no_grad():
        state = getattr(lm.hf_model(ids()[:, :9], use_cache=True), name)
        for scope in ("prompt", "response", "last_prompt", "all[3:]"):
            with (
                lm.steered(cases.knobs(scopes=[scope] * 3), 1.0),
                pytest.raises(CapabilityError, match=f"{name} of type .* does not tell its length"),
            ):
                lm.hf_model(ids()[:, 9:10], prompt_lengths=[9], **{name: state})
        with lm.steered(cases.knobs(), 1.0):  # every token: nothing must be known
            lm.hf_model(ids()[:, 9:10], **{name: state})


def test_a_state_handed_to_generate_is_refused(in_place: EngineFactory) -> None:
    lm = model(in_place.name, "rwkv")
    with torch.no_grad():
        state = lm.hf_model(ids()[:, :9], use_cache=True).state
    new = ids()[:, 9:]
    with (
        lm.steered(cases.knobs(scopes=["response"] * 3), 1.0),
        pytest.raises(CapabilityError, match="state of type list"),
    ):
        lm.hf_model.generate(
            new, attention_mask=torch.ones_like(new), state=state, max_new_tokens=2
        )


def test_a_mask_over_all_tokens_tells_where_a_bare_call_begins(in_place: EngineFactory) -> None:
    lm, whole = model(in_place.name, "rwkv"), ids()
    knobs = cases.knobs(scopes=["response", "all[10:]", "prompt"])(1.0)
    found, state = [], None
    with torch.no_grad(), lm.steered(knobs):
        for start, stop in ((0, 9), (9, 10), (10, 12)):
            out = lm.hf_model(
                whole[:, start:stop],
                attention_mask=torch.ones(1, stop),
                state=state,
                use_cache=True,
                prompt_lengths=[9],
            )
            state = out.state
            found.append(out.logits[0])
    expected = reference.run(lm.hf_model, whole[0].tolist(), [(knobs, 0)], 9).logits
    close(torch.cat(found), expected)
