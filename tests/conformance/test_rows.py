"""Contract 4: a row of a batch equals the same prompt alone; copies take their prompt's row."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steer import Composition
from steer.errors import CapabilityError, RowsError
from tests.conformance import cases
from tests.conformance.cases import PROMPTS, SCOPES, close, far
from tests.conformance.engines import ENGINES, EngineFactory
from tests.registered import OPERATORS
from tests.tiny import FAMILIES

RESPONSES = ("Ask a doctor.", "The court can set it aside.", "No.", "The share, when it falls.")
ROWS: tuple[dict[str, float], ...] = (
    {"medical": 1.0},
    {},
    {"legal": 0.7, "financial": 0.4},
    {"medical": 0.3, "legal": 1.0},
)
MIXED = (["add", "ablate", "add"], ["response", "all", "last_prompt"])


def rows_equal_alone(lm: Any, knobs: Composition, rows: Any, bound: float = 1e-5) -> None:
    """Fail unless logits and answers of a batch are those of each prompt alone."""
    with lm.steered(knobs, rows):
        together = lm.logits(PROMPTS, RESPONSES)
        answers = lm.generate(PROMPTS, max_new_tokens=6)
    for r, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        with lm.steered(knobs, [rows[r]]):
            close(together[r], lm.logits([prompt], [response])[0], bound)
            assert answers[r] == lm.generate([prompt], max_new_tokens=6)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_equals_its_prompt_alone_in_every_family(
    engine_factory: EngineFactory, family: str
) -> None:
    lm = engine_factory.shared(family)
    layers = [(-1, 1), (1, lm.n_layers - 1), (2,)]
    rows_equal_alone(lm, cases.knobs(*MIXED, layers), ROWS)
    with lm.steered(cases.knobs(*MIXED, layers), ROWS):
        steered = lm.logits(PROMPTS, RESPONSES)
    plain = lm.logits(PROMPTS, RESPONSES)
    cases.idle(family, steered[1], plain[1])
    for r in (0, 2, 3):
        far(steered[r], plain[r])


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_row_equals_its_prompt_alone_for_every_scope_and_operator(
    engine_factory: EngineFactory, operator: str, scope: str
) -> None:
    lm = engine_factory.shared()
    rows_equal_alone(lm, cases.knobs([operator] * 3, [scope] * 3), ROWS)


def test_a_row_equals_its_prompt_alone_behind_a_gate(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    gate = cases.gate(torch.stack([row[0, -1] for row in lm.activations(PROMPTS[:3], layers=[1])]))
    rows = [{"medical": 1.0, "legal": -1.0, "financial": 2.0}] * 4
    rows_equal_alone(lm, cases.knobs(scopes=["all", "response", "prompt"], gate=gate), rows)
    opened = gate(torch.stack([row[0, -1] for row in lm.activations(PROMPTS, layers=[1])]))
    assert opened[:3].tolist() == torch.eye(3).tolist()  # each prompt has a domain of its own
    with lm.steered(cases.knobs(gate=gate), rows):
        gated = lm.logits(PROMPTS[:4], RESPONSES)
    for r, domain in enumerate(cases.DOMAINS):
        with lm.steered(cases.knobs(), [{domain: rows[r][domain]}]):
            close(gated[r], lm.logits([PROMPTS[r]], [RESPONSES[r]])[0])


def test_a_row_equals_its_prompt_alone_in_bfloat16(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared(dtype=torch.bfloat16)
    knobs = cases.knobs(*MIXED)
    with lm.steered(knobs, ROWS):
        together = lm.logits(PROMPTS, RESPONSES)
    for r, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        with lm.steered(knobs, [ROWS[r]]):
            close(together[r], lm.logits([prompt], [response])[0], bound=0.05)


@given(data=st.data())
@settings(max_examples=12)
@pytest.mark.parametrize("name", ENGINES)
def test_any_split_of_a_batch_keeps_rows_with_their_prompts(name: str, data: st.DataObject) -> None:
    lm = ENGINES[name].shared()
    size = data.draw(st.integers(1, 5))
    order = data.draw(st.permutations(range(4)))
    prompts, rows = [PROMPTS[r] for r in order], [ROWS[r] for r in order]
    knobs = cases.knobs(*MIXED)
    with lm.steered(knobs, rows):
        whole = lm.generate(prompts, max_new_tokens=4)
        assert lm.generate(prompts, max_new_tokens=4, batch_size=size) == whole


def test_pieces_of_a_long_scoring_keep_rows_with_their_prompts(
    engine_factory: EngineFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = engine_factory.shared()
    with lm.steered(cases.knobs(*MIXED), ROWS):
        whole = lm.logits(PROMPTS, RESPONSES)
        scores, streams = lm.logprobs(PROMPTS, RESPONSES), lm.activations(PROMPTS)
        monkeypatch.setattr("steer.model._model._TOKENS", 1)  # one row per forward
        for a, b in zip(whole, lm.logits(PROMPTS, RESPONSES), strict=True):
            close(b, a)
        for a, b in zip(scores, lm.logprobs(PROMPTS, RESPONSES), strict=True):
            close(b, a)
        for a, b in zip(streams, lm.activations(PROMPTS), strict=True):
            close(b, a)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    "options",
    [{"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2}],
    ids=["beams", "several beams returned"],
)
def test_beams_take_the_row_of_their_prompt(
    engine_factory: EngineFactory, options: dict[str, int], gated: bool
) -> None:
    lm = engine_factory.shared()
    knobs = cases.knobs(*MIXED, gate=cases.gate(layer=0) if gated else None)
    copies = options.get("num_return_sequences", 1)
    with lm.steered(knobs, ROWS):
        together = lm.generate(PROMPTS, max_new_tokens=5, **options)
        split = lm.generate(PROMPTS, max_new_tokens=5, batch_size=3, **options)
    assert split == together
    assert len(together) == 4 * copies
    for r, prompt in enumerate(PROMPTS):
        with lm.steered(knobs, [ROWS[r]]):
            alone = lm.generate([prompt], max_new_tokens=5, **options)
        assert together[r * copies : (r + 1) * copies] == alone


def test_sampled_copies_take_the_row_of_their_prompt(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    options: dict[str, Any] = {"do_sample": True, "top_k": 1, "num_return_sequences": 3}
    with lm.steered(cases.knobs(*MIXED), ROWS):
        greedy = lm.generate(PROMPTS, max_new_tokens=5)
        copies = lm.generate(PROMPTS, max_new_tokens=5, **options)
    assert len(set(greedy)) > 1
    assert copies == [answer for answer in greedy for _ in range(3)]


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_wrong_number_of_rows_is_refused(engine_factory: EngineFactory, count: int) -> None:
    lm = engine_factory.shared()
    with lm.steered(cases.knobs(), [{"medical": 1.0}] * count):
        for call in (
            lambda: lm.generate(PROMPTS, max_new_tokens=2),
            lambda: lm.generate(PROMPTS, max_new_tokens=2, batch_size=count),
            lambda: lm.logits(PROMPTS, RESPONSES),
            lambda: lm.logprobs(PROMPTS, RESPONSES),
            lambda: lm.activations(PROMPTS),
        ):
            with pytest.raises(RowsError, match=f"{count} rows"):
                call()
        right = PROMPTS[:1] * count
        assert len(lm.generate(right, max_new_tokens=2)) == count  # usable after the refusal


def test_rows_may_be_updated_to_another_number(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    knobs = cases.knobs(scopes=["all", "response", "prompt"], gate=cases.gate(layer=0, margin=99))
    with lm.steered(knobs, ROWS) as handle:
        lm.generate(PROMPTS, max_new_tokens=2, batch_size=3)
        handle.update(ROWS[2:3])
        updated = lm.logits(PROMPTS[:1], RESPONSES[:1])[0]
    with lm.steered(knobs, ROWS[2:3]):
        assert torch.equal(updated, lm.logits(PROMPTS[:1], RESPONSES[:1])[0])


def test_no_engine_takes_rows_without_declaring_it(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    if "rows" not in engine_factory.capabilities:
        with pytest.raises(CapabilityError):
            lm.steered(cases.knobs(), ROWS).attach()
