"""Weight sites and mixtures with residual sites: contracts 1 and 3 to 6 through `Model` alone."""

from typing import Any

import pytest
import torch

from steer import Part, compose
from steer.errors import CapabilityError, RowsError
from tests.conformance import cases, reference
from tests.conformance.cases import KINDS, PROMPTS, SCOPES, close, far, same_bits
from tests.conformance.engines import EngineFactory
from tests.conformance.test_cache import answers_by_full_forwards
from tests.tiny import FAMILIES
from tests.weights import everywhere

RESPONSES = ("Ask a doctor.", "The court can set it aside.", "No.", "The share, when it falls.")
ROWS: tuple[dict[str, float], ...] = (
    {"medical": 1.0},
    {},
    {"legal": 0.7, "financial": 0.4},
    {"medical": 0.3, "legal": 1.0},
)
MIXED = (["add", "ablate", "add"], ["response", "all", "last_prompt"])


def gate_for(lm: Any) -> Any:
    """A gate at layer 1 for which each of the first three prompts has a domain of its own."""
    return cases.gate(torch.stack([row[0, -1] for row in lm.activations(PROMPTS[:3], layers=[1])]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("scope", ["all", "response[:18]"])
def test_coefficient_zero_is_bit_identical(
    engine_factory: EngineFactory, scope: str, dtype: torch.dtype, kind: str
) -> None:
    lm = engine_factory.shared(dtype=dtype)
    knobs = cases.mixed(lm, kind, scopes=[scope] * 3)
    plain = lm.logits(PROMPTS, RESPONSES)
    for zero in (0.0, -0.0, {"medical": 0.0}, [{}] * 4, torch.zeros(4, 3)):
        with lm.steered(knobs, zero):
            assert all(map(same_bits, plain, lm.logits(PROMPTS, RESPONSES)))
    with lm.steered(knobs, 1.0) as handle:
        far(torch.cat(lm.logits(PROMPTS, RESPONSES)), torch.cat(plain))
        handle.update(0.0)
        assert all(map(same_bits, plain, lm.logits(PROMPTS, RESPONSES)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_zero_and_an_empty_row_in_every_family(
    engine_factory: EngineFactory, family: str, kind: str
) -> None:
    lm = engine_factory.shared(family)
    knobs = cases.mixed(lm, kind, *MIXED)
    plain = lm.logits(PROMPTS, RESPONSES)
    with lm.steered(knobs, 0.0):
        assert all(map(same_bits, plain, lm.logits(PROMPTS, RESPONSES)))
    with lm.steered(knobs, ROWS):
        steered = lm.logits(PROMPTS, RESPONSES)
    cases.idle(family, steered[1], plain[1])
    for r in (0, 2, 3):
        far(steered[r], plain[r])


def test_a_closed_gate_is_bit_identical(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    plain = lm.logits(PROMPTS, RESPONSES)
    background = torch.cat([torch.full((3, cases.WIDTH), 1e3), torch.zeros(1, cases.WIDTH)])
    knobs = cases.mixed(lm, "both", gate=cases.gate(background))
    with lm.steered(knobs, 0.7):
        assert all(map(same_bits, plain, lm.logits(PROMPTS, RESPONSES)))
    with lm.steered(knobs.gated(cases.gate(background, margin=1e9)), 0.7):
        far(torch.cat(lm.logits(PROMPTS, RESPONSES)), torch.cat(plain))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scope", ["all", "prompt", "all[3:]"])
def test_two_contexts_are_their_sum(engine_factory: EngineFactory, scope: str, kind: str) -> None:
    lm = engine_factory.shared()
    parts = cases.mixed(lm, kind).parts
    u, w = parts["medical"].vector, parts["legal"].vector
    with lm.steered(u, 0.7, scope=scope), lm.steered(w, -0.4, scope=scope):
        nested = torch.cat(lm.logits(PROMPTS, RESPONSES))
    with lm.steered(0.7 * u + -0.4 * w, scope=scope):
        close(nested, torch.cat(lm.logits(PROMPTS, RESPONSES)))
    far(nested, torch.cat(lm.logits(PROMPTS, RESPONSES)))


def test_handles_are_removed_in_any_order(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    parts = cases.mixed(lm, "both").parts

    def logits() -> torch.Tensor:
        return torch.cat(lm.logits(PROMPTS, RESPONSES))

    plain = logits()
    with lm.steered({"b": parts["legal"]}):
        only_b = logits()
    first = lm.steered({"a": parts["medical"]}).attach()
    second = lm.steered({"b": parts["legal"]}).attach()
    far(logits(), only_b)
    first.remove()
    assert same_bits(logits(), only_b)
    second.remove()
    assert same_bits(logits(), plain)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_equals_its_prompt_alone_in_every_family(
    engine_factory: EngineFactory, family: str, kind: str
) -> None:
    lm = engine_factory.shared(family)
    knobs = cases.mixed(lm, kind, *MIXED)
    with lm.steered(knobs, ROWS):
        together = lm.logits(PROMPTS, RESPONSES)
        answers = lm.generate(PROMPTS, max_new_tokens=5)
        assert lm.generate(PROMPTS, max_new_tokens=5, batch_size=3) == answers
    for r, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        with lm.steered(knobs, [ROWS[r]]):
            close(together[r], lm.logits([prompt], [response])[0])
            assert answers[r] == lm.generate([prompt], max_new_tokens=5)[0]


@pytest.mark.parametrize("gated", [False, True])
def test_beams_and_copies_take_the_row_of_their_prompt(
    engine_factory: EngineFactory, gated: bool
) -> None:
    lm = engine_factory.shared()
    knobs = cases.mixed(lm, "both", *MIXED, gate=gate_for(lm) if gated else None)
    beams = {"max_new_tokens": 5, "num_beams": 4, "num_return_sequences": 2}
    sampled = {"max_new_tokens": 5, "do_sample": True, "top_k": 1, "num_return_sequences": 3}
    with lm.steered(knobs, ROWS):
        together = lm.generate(PROMPTS, **beams)
        greedy = lm.generate(PROMPTS, max_new_tokens=5)
        assert lm.generate(PROMPTS, **sampled) == [answer for answer in greedy for _ in range(3)]
    for r, prompt in enumerate(PROMPTS):
        with lm.steered(knobs, [ROWS[r]]):
            assert together[2 * r : 2 * r + 2] == lm.generate([prompt], **beams)


def test_a_wrong_number_of_rows_is_refused(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    with lm.steered(cases.mixed(lm, "weights"), ROWS[:3]):
        with pytest.raises(RowsError, match="3 rows"):
            lm.generate(PROMPTS, max_new_tokens=2)
        with pytest.raises(RowsError, match="3 rows"):
            lm.logits(PROMPTS, RESPONSES)
        assert len(lm.generate(PROMPTS[:3], max_new_tokens=2)) == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scope", SCOPES)
def test_cached_generation_equals_full_forwards(
    engine_factory: EngineFactory, scope: str, kind: str
) -> None:
    lm = engine_factory.shared()
    knobs = cases.mixed(lm, kind, scopes=[scope] * 3)
    with lm.steered(knobs, ROWS):
        answers = lm.generate(PROMPTS, max_new_tokens=6)
        assert lm.generate(PROMPTS, max_new_tokens=6, use_cache=False) == answers
    assert answers == answers_by_full_forwards(lm, knobs, ROWS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_gated_cached_generation_equals_full_forwards_in_every_family(
    engine_factory: EngineFactory, family: str, kind: str
) -> None:
    lm = engine_factory.shared(family)
    knobs = cases.mixed(lm, kind, *MIXED, gate=gate_for(lm))
    rows = [{"medical": 1.0, "legal": 0.8, "financial": 0.9}] * 4
    with lm.steered(knobs, rows):
        answers = lm.generate(PROMPTS, max_new_tokens=6)
    assert answers == answers_by_full_forwards(lm, knobs, rows)
    assert answers != lm.generate(PROMPTS, max_new_tokens=6)


@pytest.mark.parametrize("static", [False, True])
def test_a_gate_reads_the_prompt_without_the_weights_it_opens(
    engine_factory: EngineFactory, static: bool
) -> None:
    """Else the decision would depend on the coefficients, and a row on its own setting."""
    lm = engine_factory.shared()
    gate = gate_for(lm)
    knobs = cases.mixed(lm, "weights", gate=gate, size=3.0)
    other = lm.steered(cases.vector(0), 0.0 if static else [{}] * 4)
    with lm.steered(knobs, 1.0), other:
        gated = lm.logits(PROMPTS[:3] + PROMPTS[:1], RESPONSES)
    for r, domain in enumerate(cases.DOMAINS):
        with lm.steered(cases.mixed(lm, "weights", size=3.0), {domain: 1.0}):
            alone = lm.logits([PROMPTS[r]], [RESPONSES[r]])[0]
            close(gated[r], alone, cases.displaced_bound(3.0))


def test_scoring_equals_the_textbook(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    from steer.network import encode_prompt

    for scope in SCOPES:
        knobs = cases.mixed(lm, "both", scopes=[scope] * 3)(0.6)
        with lm.steered(knobs):
            scored = lm.logits(PROMPTS, RESPONSES)
        for prompt, response, found in zip(PROMPTS, RESPONSES, scored, strict=True):
            start = encode_prompt(lm.tokenizer, prompt)
            ids = (*start, *lm.tokenizer(response, add_special_tokens=False)["input_ids"])
            run = reference.run(lm.hf_model, ids, [(knobs, 0)], len(start))
            close(found, run.logits[len(start) - 1 : -1])


def test_what_is_captured_below_the_first_displaced_weight_is_the_baseline(
    engine_factory: EngineFactory,
) -> None:
    lm = engine_factory.shared()
    plain = lm.activations(PROMPTS)
    v = everywhere(lm.hf_model, keep=lambda name: "layers.2." in name)
    with lm.steered({"v": Part(v, scope="last_prompt")}):
        steered = lm.activations(PROMPTS)
    for before, after in zip(plain, steered, strict=True):
        assert torch.equal(after[:2], before[:2])
        assert torch.equal(after[2, :-1], before[2, :-1])
        far(after[2, -1], before[2, -1])


def test_in_bfloat16_to_a_stated_bound(engine_factory: EngineFactory) -> None:
    lm, exact = engine_factory.shared(dtype=torch.bfloat16), engine_factory.shared()
    knobs = cases.mixed(exact, "both")
    plain = torch.cat(exact.logits(PROMPTS, RESPONSES))
    with lm.steered(knobs, ROWS):
        found = torch.cat(lm.logits(PROMPTS, RESPONSES))
    with exact.steered(knobs, ROWS):
        expected = torch.cat(exact.logits(PROMPTS, RESPONSES))
    close(found.float(), expected, bound=0.1)
    far(expected, plain)


def test_no_engine_takes_weights_without_declaring_it(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    if "weights" not in engine_factory.capabilities:
        with pytest.raises(CapabilityError):
            lm.steered(compose(v=everywhere(lm.hf_model))).attach()
