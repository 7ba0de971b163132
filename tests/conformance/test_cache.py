"""Contract 5: prefill plus cached decoding equals the full forward without cache."""

from typing import Any

import pytest
import torch

from steer.network import encode_prompt
from tests.conformance import cases, reference
from tests.conformance.cases import PROMPTS, SCOPES, close
from tests.conformance.engines import EngineFactory
from tests.registered import OPERATORS
from tests.tiny import FAMILIES

STEPS = 6


def answers_by_full_forwards(lm: Any, knobs: Any, rows: Any) -> list[str]:
    """Greedy answers by the textbook, one full forward per token and prompt."""
    found = []
    for r, prompt in enumerate(PROMPTS):
        ids = encode_prompt(lm.tokenizer, prompt)
        new, _ = reference.greedy(lm.hf_model, ids, [(knobs(rows), r)], STEPS)
        ends = [k for k, token in enumerate(new) if token == lm.hf_model.config.eos_token_id]
        found.append(
            lm.tokenizer.decode(new[: ends[0] if ends else None], skip_special_tokens=True)
        )
    return found


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_cached_generation_equals_full_forwards(
    engine_factory: EngineFactory, operator: str, scope: str
) -> None:
    lm = engine_factory.shared()
    knobs = cases.knobs([operator] * 3, [scope] * 3)
    rows = [{"medical": 1.0}, {"legal": 1.0}, {}, {"medical": 0.5, "financial": 0.8}]
    with lm.steered(knobs, rows):
        answers = lm.generate(PROMPTS, max_new_tokens=STEPS)
    assert answers == answers_by_full_forwards(lm, knobs, rows)


def test_gated_cached_generation_equals_full_forwards(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    means = torch.stack([row[0, -1] for row in lm.activations(PROMPTS[:3], layers=[1])])
    knobs = cases.knobs(scopes=["all", "response", "prompt"], gate=cases.gate(means))
    rows = [{"medical": 2.0, "legal": -2.0, "financial": 3.0}] * 4
    with lm.steered(knobs, rows):
        answers = lm.generate(PROMPTS, max_new_tokens=STEPS)
    assert answers == answers_by_full_forwards(lm, knobs, rows)
    assert answers != lm.generate(PROMPTS, max_new_tokens=STEPS)


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_generation_equals_full_forwards_in_every_family(
    engine_factory: EngineFactory, family: str
) -> None:
    lm = engine_factory.shared(family)
    knobs = cases.knobs(
        ["add", "ablate", "add"],
        ["response", "all[3:]", "last_prompt"],
        [(-1, 0, 1, 2, 3), (1, 3), (2,)],
        gate=cases.gate(layer=-1, margin=0.5),
    )
    rows = [{"medical": 1.0}, {"legal": 1.0}, {}, {"medical": 0.5, "financial": 0.8}]
    with lm.steered(knobs, rows):
        answers = lm.generate(PROMPTS, max_new_tokens=STEPS)
    assert answers == answers_by_full_forwards(lm, knobs, rows)


def test_scoring_equals_the_textbook(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    responses = ["Ask a doctor.", "No.", "The court can set it aside.", "Yes"]
    for scope in SCOPES:
        knobs = cases.knobs(["add", "ablate", "add"], [scope] * 3)(0.6)
        with lm.steered(knobs):
            scored = lm.logits(PROMPTS, responses)
        for prompt, response, found in zip(PROMPTS, responses, scored, strict=True):
            start = encode_prompt(lm.tokenizer, prompt)
            ids = (*start, *lm.tokenizer(response, add_special_tokens=False)["input_ids"])
            run = reference.run(lm.hf_model, ids, [(knobs, 0)], len(start))
            close(found, run.logits[len(start) - 1 : -1])


def test_without_a_cache_the_answers_are_the_same(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    knobs = cases.knobs(scopes=["response", "all[3:]", "last_prompt"], gate=cases.gate(layer=0))
    with lm.steered(knobs, 1.5):
        cached = lm.generate(PROMPTS, max_new_tokens=STEPS)
        assert lm.generate(PROMPTS, max_new_tokens=STEPS, use_cache=False) == cached
