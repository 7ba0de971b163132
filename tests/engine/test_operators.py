"""The operators alone, against a float64 reference that shares no code with them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from steer import Dense, Part, Vector, Weight, compose
from steer.algebra import Operator, get_operator, operators, register_operator
from steer.algebra._operator import ABLATE, ADD, ORDER, cast
from steer.errors import CompositionError
from tests.conformance import cases, reference

D = 24
seeds = st.integers(0, 10_000)
strengths = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def near_parallel(kind: str, count: int, seed: int) -> Tensor:
    """Directions of one kind: random, nearly one, duplicates, opposite, or zero among them."""
    V, base = random(count, D, seed=seed), random(1, D, seed=seed + 1)
    return {
        "random": V,
        "cosine 0.97": base + 0.25 * V,
        "cosine 1 - 1e-6": base + 1e-3 * V,
        "duplicates": base.expand(count, -1).clone(),
        "multiples": base * torch.linspace(-3.0, 4.0, count)[:, None],
        "zeros": torch.zeros(count, D),
        "one zero": torch.cat([torch.zeros(1, D), V[1:]]),
    }[kind]


KINDS = [
    "random",
    "cosine 0.97",
    "cosine 1 - 1e-6",
    "duplicates",
    "multiples",
    "zeros",
    "one zero",
]


def bound(kind: str) -> float:
    """Directions of cosine 1 − 1e-6 differ by 1e-3 of their length: errors grow a thousandfold."""
    return 1e-3 if "1e-6" in kind else 2e-5


@given(st.sampled_from(KINDS), st.data(), seeds)
def test_ablate_equals_nested_projections(kind: str, data: st.DataObject, seed: int) -> None:
    count, rows = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    V = near_parallel(kind, count, seed)
    c = torch.tensor([[data.draw(strengths) for _ in range(count)] for _ in range(rows)])
    h = random(rows, 5, D, seed=seed + 2)
    found = ABLATE(h, V, c)
    for r in range(rows):
        expected = reference.ablate(h[r].double(), V.double(), c[r].double())
        assert (found[r].double() - expected).abs().max() <= bound(kind)


@given(st.sampled_from(KINDS), seeds)
def test_full_strength_removes_the_whole_span_once(kind: str, seed: int) -> None:
    V, h = near_parallel(kind, 3, seed), random(2, 5, D, seed=seed + 2)
    once = ABLATE(h, V, torch.ones(2, 3))
    unit = torch.nn.functional.normalize(V.double(), dim=1)
    assert (once.double() @ unit.T).abs().max() <= bound(kind)
    torch.testing.assert_close(ABLATE(once, V, torch.ones(2, 3)), once, atol=1e-5, rtol=0)
    assert (once.norm(dim=-1) <= h.norm(dim=-1) * (1 + 1e-6)).all()


def test_near_parallel_domains_remove_their_direction_once_and_not_three_times() -> None:
    v = random(1, D, seed=0)
    h, V = random(1, 4, D, seed=1), torch.cat([v, v + 1e-6 * random(1, D, seed=2), 3 * v])
    one = ABLATE(h, v, torch.full((1, 1), 0.5))
    three = ABLATE(h, V, torch.full((1, 3), 0.5))
    torch.testing.assert_close(three, one, atol=1e-5, rtol=0)


@given(seeds, st.lists(strengths, min_size=3, max_size=3))
def test_order_of_domains_does_not_matter(seed: int, c: list[float]) -> None:
    V, h = random(3, D, seed=seed), random(1, 4, D, seed=seed + 1)
    if len(set(c)) < 3:
        c = [c[0]] * 3  # ties of unequal directions are broken by the order of domains
    for order in ([1, 2, 0], [2, 1, 0]):
        there = ABLATE(h, V[order], torch.tensor([[c[k] for k in order]]))
        torch.testing.assert_close(there, ABLATE(h, V, torch.tensor([c])), atol=1e-5, rtol=1e-5)


@given(seeds, st.integers(-36, 36))
def test_the_length_of_a_direction_does_not_matter_to_ablate(seed: int, power: int) -> None:
    V, h = random(2, D, seed=seed), random(1, 4, D, seed=seed + 1)
    c = torch.tensor([[0.5, 1.0]])
    there = ABLATE(h, torch.cat([V[:1] * 10.0**power, V[1:]]), c)
    torch.testing.assert_close(there, ABLATE(h, V, c), atol=1e-5, rtol=1e-5)


@given(seeds, st.lists(st.floats(-3, 3, width=32), min_size=3, max_size=3))
def test_add_equals_the_sum(seed: int, c: list[float]) -> None:
    V, h = random(3, D, seed=seed), random(2, 4, D, seed=seed + 1)
    rows = torch.tensor([c, [0.0, 1.0, 0.0]])
    expected = h.double() + (rows.double() @ V.double())[:, None]
    torch.testing.assert_close(ADD(h, V, rows).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float16, 2**-10), (torch.bfloat16, 2**-7), (torch.float64, 1e-12)]
)
def test_other_precisions_to_a_stated_bound(dtype: torch.dtype, bound: float) -> None:
    """One rounding of the sum for `add`; d_model products for `ablate`, hence 4 times that."""
    h, V = random(2, 4, D, seed=0).to(dtype), random(2, D, seed=1).double()
    V = V if dtype == torch.float64 else V.float()
    c = torch.tensor([[1.0, 0.5], [0.25, 1.0]], dtype=V.dtype)
    for operator, slack in ((ADD, 1), (ABLATE, 4)):
        found = operator(h, V, c)
        assert found.dtype == dtype
        for r in range(2):
            expected = reference.OPERATORS[operator.name](h[r].double(), V.double(), c[r].double())
            assert cases.distance(found[r], expected) <= slack * bound


def test_the_order_at_a_site_and_the_registry() -> None:
    assert ORDER == ("ablate", "clamp", "rotate", "add")
    assert ABLATE.rank < ADD.rank
    assert operators() == tuple(sorted(operators(), key=lambda name: get_operator(name).rank))
    assert register_operator(ADD) is ADD  # a notebook cell that runs again
    with pytest.raises(CompositionError, match="unknown operator"):
        get_operator("amplify")
    late = Operator("another", ADD.prepare, ADD.apply)
    assert late.rank == len(ORDER)


@pytest.mark.parametrize("c", [-0.1, 1.1])
def test_a_strength_outside_its_range_is_refused(c: float) -> None:
    with pytest.raises(CompositionError, match="out of range"):
        ABLATE.check(torch.tensor([[c]]))
    with pytest.raises(CompositionError, match="out of range"):
        cases.knobs(["ablate", "add", "add"])(medical=c)
    ADD.check(torch.tensor([[c]]))
    compose(v=cases.vector(1))(c)


def test_an_operator_that_would_do_nothing_at_weights_is_refused() -> None:
    weights = Vector({Weight("a.weight"): Dense(torch.ones(2, 2))})
    both = Vector({**weights.terms, **cases.vector(1).terms})
    with pytest.raises(CompositionError, match="weights can only be added"):
        Part(weights, "ablate")
    assert Part(both, "ablate").operator == "ablate"
    assert Part(weights).operator == "add"


@pytest.mark.parametrize("value", [10**400, 10**5000, 1e39, [1e39], {"v": -1e39}], ids=type)
def test_a_coefficient_beyond_float32_is_refused_in_few_words(value: object) -> None:
    with pytest.raises(CompositionError, match="within float32") as caught:
        compose(v=cases.vector(1))(value)
    assert len(str(caught.value)) < 500


def test_cast_keeps_boolean_tensors() -> None:
    h = torch.zeros(1, 1, 2, dtype=torch.bfloat16)
    floats, flags = cast((torch.ones(2), torch.ones(2, dtype=torch.bool)), h)
    assert floats.dtype == torch.bfloat16
    assert flags.dtype == torch.bool
