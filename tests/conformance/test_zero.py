"""Contract 1: coefficient 0, rows of zeros or a closed gate give the unsteered model bit for bit.

An empty row beside others does so too, to rounding where experts multiply all rows at once.
"""

from typing import Any

import pytest
import torch

from steer import Part, Scope, compose
from tests.conformance import cases
from tests.conformance.cases import PROMPTS, SCOPES, far, same_bits
from tests.conformance.engines import EngineFactory
from tests.registered import OPERATORS
from tests.tiny import FAMILIES

RESPONSES = ("Ask a doctor.", "The court can set it aside.", "No.", "The share, when it falls.")
ZEROS: dict[str, Any] = {
    "a number": 0.0,
    "minus zero": -0.0,
    "a mapping": {"medical": 0.0},
    "rows": [{}] * 4,
    "a tensor": torch.zeros(4, 3),
}
CLOSED = torch.cat([torch.full((3, cases.WIDTH), 1e3), torch.zeros(1, cases.WIDTH)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("scope", SCOPES)
def test_coefficient_zero_is_bit_identical(
    engine_factory: EngineFactory, operator: str, scope: str, dtype: torch.dtype
) -> None:
    lm = engine_factory.shared(dtype=dtype)
    knobs = cases.knobs([operator] * 3, [scope] * 3)
    plain = lm.logits(PROMPTS, RESPONSES)
    for name, zero in ZEROS.items():
        with lm.steered(knobs, zero):
            steered = lm.logits(PROMPTS, RESPONSES)
        assert all(map(same_bits, plain, steered)), name
    with lm.steered(knobs, 1.0):
        if scope != "last_prompt" or operator == "add":
            far(torch.cat(lm.logits(PROMPTS, RESPONSES)), torch.cat(plain))


@pytest.mark.parametrize("family", FAMILIES)
def test_coefficient_zero_is_bit_identical_in_every_family(
    engine_factory: EngineFactory, family: str
) -> None:
    lm = engine_factory.shared(family)
    everywhere = cases.vector(-1, *range(lm.n_layers))
    knobs = compose(
        a=Part(everywhere),
        b=Part(everywhere, "ablate"),
        c=Part(everywhere, "add", Scope("response")),
    )
    plain = lm.logits(PROMPTS, RESPONSES)
    with lm.steered(knobs, 0.0):
        assert all(map(same_bits, plain, lm.logits(PROMPTS, RESPONSES)))
    with lm.steered(knobs, 1.0):
        far(torch.cat(lm.logits(PROMPTS, RESPONSES)), torch.cat(plain))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_an_empty_row_is_the_unsteered_one_beside_rows_that_are_not(
    engine_factory: EngineFactory, operator: str, family: str
) -> None:
    lm = engine_factory.shared(family)
    plain = lm.logits(PROMPTS, RESPONSES)
    rows = [{}, {"medical": 1.0}, {}, {"legal": 0.5}]
    with lm.steered(cases.knobs([operator] * 3), rows):
        steered = lm.logits(PROMPTS, RESPONSES)
    for r, row in enumerate(rows):
        if row:
            far(steered[r], plain[r])
        else:
            cases.idle(family, steered[r], plain[r])


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_closed_gate_is_bit_identical(
    engine_factory: EngineFactory, operator: str, dtype: torch.dtype
) -> None:
    lm = engine_factory.shared(dtype=dtype)
    plain = lm.logits(PROMPTS, RESPONSES)
    knobs = cases.knobs([operator] * 3, gate=cases.gate(CLOSED))
    with lm.steered(knobs, 0.7):
        assert all(map(same_bits, plain, lm.logits(PROMPTS, RESPONSES)))
    with lm.steered(knobs.gated(cases.gate(CLOSED, margin=1e9)), 0.7):
        far(torch.cat(lm.logits(PROMPTS, RESPONSES)), torch.cat(plain))


def test_generating_with_coefficient_zero_gives_the_same_texts(
    engine_factory: EngineFactory,
) -> None:
    lm = engine_factory.shared()
    plain = lm.generate(PROMPTS, max_new_tokens=6)
    with lm.steered(cases.knobs(scopes=["all", "response", "prompt"]), [{}] * 4):
        assert lm.generate(PROMPTS, max_new_tokens=6) == plain


def test_zero_at_the_embedding_output(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    plain = lm.activations(PROMPTS, layers=[-1, 0])
    with lm.steered(cases.vector(-1), 0.0):
        assert all(map(same_bits, plain, lm.activations(PROMPTS, layers=[-1, 0])))
