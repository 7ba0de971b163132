"""What every registered operator owes, and an operator from outside the package."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from steer import compose
from steer.algebra import Operator, Part, get_operator, register_operator
from steer.algebra._operator import _OPERATORS
from steer.errors import CompositionError
from tests.conformance import cases, reference
from tests.conformance.cases import PROMPTS, close, same_bits
from tests.extract.reference import tiny
from tests.laws.operators import LAWS
from tests.registered import OPERATORS


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", OPERATORS)
def test_every_registered_operator_keeps_the_law(name: str, law: Callable[[str], None]) -> None:
    law(name)


def turn(angle: float) -> Operator:
    """Rotate the stream towards the sum of the directions, by an angle times the coefficient."""

    def prepare(V: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        towards = c @ V
        length = towards.norm(dim=1, keepdim=True)
        unit = towards / length.clamp_min(1e-30)
        by = angle * c.abs().amax(dim=1)[:, None, None]
        return unit[:, None, :], by, (c == 0).all(dim=1)[:, None, None]

    def apply(h: Tensor, prepared: tuple[Tensor, ...]) -> Tensor:
        unit, by, idle = prepared
        along = (h * unit).sum(dim=-1, keepdim=True)
        rest = h - along * unit
        height = rest.norm(dim=-1, keepdim=True)
        new = along * by.cos() + height * by.sin()
        scale = (height * by.cos() - along * by.sin()) / height
        return torch.where(idle, h, new * unit + scale * rest)

    return Operator("turn", prepare, apply, at=turn)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> str:
    """An operator that is registered for one test."""
    monkeypatch.setattr(_OPERATORS, "_values", dict(_OPERATORS._values))
    return register_operator(turn(0.25)).name


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("spelled", ["turn", "turn(0.5)"])
def test_an_operator_from_outside_is_held_to_the_laws(
    outside: str, spelled: str, law: Callable[[str], None]
) -> None:
    law(spelled)


def test_an_operator_from_outside_steers_as_the_textbook_says(outside: str) -> None:
    lm = tiny()
    plain = lm.logits(PROMPTS[:2], ["Yes.", "No."])
    knobs = compose(v=Part(cases.vector(1, 2), "turn( 0.75 )"))
    assert knobs.parts["v"].operator == "turn(0.75)"
    with lm.steered(knobs, 0.0):
        assert all(map(same_bits, lm.logits(PROMPTS[:2], ["Yes.", "No."]), plain))
    with lm.steered(knobs, [{"v": 1.0}, {}]):
        first, second = lm.logits(PROMPTS[:2], ["Yes.", "No."])
    close(second, plain[1])
    with lm.steered(knobs, 1.0):
        close(first, lm.logits(PROMPTS[:2], ["Yes.", "No."])[0])
    ids = cases.sequences()[0]
    found = reference.run(lm.hf_model, ids, [(knobs(1.0), 0)], 12)
    with lm.steered(knobs, 1.0), torch.no_grad():
        close(lm.hf_model(input_ids=torch.tensor([ids])).logits[0], found.logits)


@pytest.mark.parametrize(
    "name",
    ["turn(", "turn()", "turn(x)", "turn(nan)", "turn(1e999)", "turn(1)(2)", "add(0.5)", "", "(1)"],
)
def test_an_argument_that_is_none_is_refused(outside: str, name: str) -> None:
    with pytest.raises(CompositionError, match=r"turn\(NUMBER\)"):
        get_operator(name)
    with pytest.raises(CompositionError, match="unknown operator"):
        Part(cases.vector(1), name)


def test_a_name_that_is_taken_is_refused(outside: str) -> None:
    with pytest.raises(CompositionError, match="exists already"):
        register_operator(Operator(outside, get_operator("add").prepare, get_operator("add").apply))
    assert register_operator(turn(0.1)).at is turn  # a notebook cell that runs again
