"""The axioms of a vector space with an inner product."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steer.algebra import Dense, Direction, LowRank, Residual, Vector, Weight
from steer.algebra._site import EMBED
from steer.errors import AlgebraError
from tests.laws.spaces import (
    NUMBERS,
    RESIDUAL_SITES,
    WEIGHT_SITES,
    assert_same,
    both_kinds,
    either_kind,
    normal,
    vectors,
)


@given(both_kinds())
def test_addition_is_a_commutative_group(uvw):
    u, v, w = uvw
    assert_same(u + v, v + u)
    assert_same((u + v) + w, u + (v + w))
    assert_same(u + 0 * v, u)
    assert_same(u + -u, 0 * u)
    assert_same(u - v, u + -v)


@given(both_kinds(), NUMBERS, NUMBERS)
def test_scaling_is_compatible_and_distributes(uvw, a, b):
    u, v, _ = uvw
    assert_same(a * (b * u), (a * b) * u)
    assert_same(1 * u, u)
    assert_same(a * (u + v), a * u + a * v)
    assert_same((a + b) * u, a * u + b * u)
    assert_same(u * a, a * u)


@given(both_kinds(), st.sampled_from([-8, 0.25, 3]))
def test_division_is_scaling_by_the_inverse(uvw, a):
    assert_same(uvw[0] / a, (1 / a) * uvw[0])


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), np.int64(2), Fraction(1, 2)])
def test_a_number_of_any_library_scales(number):
    u = Vector.of({0: torch.tensor([1.0, -2.0]), 3: torch.ones(2)})
    assert_same(number * u, float(number) * u)
    assert_same(u * number, float(number) * u)
    assert_same(u / number, u / float(number))


@given(either_kind(), NUMBERS)
def test_the_inner_product_is_bilinear_symmetric_and_positive(uvw, a):
    u, v, w = uvw
    bound = pytest.approx
    assert u @ v == bound(v @ u, rel=1e-9, abs=1e-8)
    assert (u + v) @ w == bound(u @ w + v @ w, rel=1e-9, abs=1e-8)
    assert (a * u) @ v == bound(a * (u @ v), rel=1e-9, abs=1e-6)
    assert u @ u > 0
    assert u.norm() == bound((u @ u) ** 0.5)
    assert (0 * u).norm() == 0


@given(either_kind(), NUMBERS)
def test_norms_obey_cauchy_schwarz_and_the_triangle(uvw, a):
    u, v, _ = uvw
    assert abs(u @ v) <= u.norm() * v.norm() * (1 + 1e-12)
    assert (u + v).norm() <= (u.norm() + v.norm()) * (1 + 1e-12)
    assert (a * u).norm() == pytest.approx(abs(a) * u.norm())


@given(either_kind())
def test_the_cosine_is_the_normalised_inner_product(uvw):
    u, v, _ = uvw
    assert u.cosine(v) == pytest.approx((u @ v) / (u.norm() * v.norm()))
    assert -1 <= u.cosine(v) <= 1
    assert u.cosine(u) == pytest.approx(1)
    assert (-3 * u).cosine(u) == pytest.approx(-1)


def test_the_inner_product_is_the_sum_over_shared_sites_only():
    u = Vector.of({0: torch.tensor([1.0, 2.0]), 1: torch.tensor([1.0, 1.0])})
    w = Vector.of({1: torch.tensor([3.0, 5.0]), 2: torch.tensor([100.0, 100.0])})
    assert u @ w == 8.0
    assert (u + w).layers == (0, 1, 2)


def test_the_norm_of_a_vector_is_that_of_all_its_numbers():
    parts = {layer: normal(layer, 7) for layer in range(3)}
    flat = torch.cat(list(parts.values()))
    assert Vector.of(parts).norm() == pytest.approx(float(flat.norm()))


@given(vectors(RESIDUAL_SITES), vectors(WEIGHT_SITES))
def test_a_mixture_is_a_direct_sum_without_a_common_unit(u, w):
    mixed = u + w
    assert_same(mixed.residual, u)
    assert_same(mixed.weight, w)
    assert_same(mixed.residual + mixed.weight, mixed)
    for measure in (lambda: mixed.norm(), lambda: mixed @ u, lambda: w.cosine(mixed)):
        with pytest.raises(AlgebraError, match="different units"):
            measure()
    with pytest.raises(AlgebraError, match="different units"):
        u @ w


def test_the_zero_vector_has_no_direction():
    u = Vector.of({0: torch.ones(2)})
    with pytest.raises(AlgebraError, match="no direction"):
        u.cosine(0 * u)


def test_a_cosine_with_nan_is_nan_and_not_one():
    u = Vector({Weight("w"): Dense(torch.tensor([1.0, float("nan")]))})
    assert u.cosine(u) != u.cosine(u)


@pytest.mark.parametrize(
    "operation", [lambda u: u / 0, lambda u: u / 0.0, lambda u: u * 10**400, lambda u: u / 10**400]
)
def test_a_factor_without_a_finite_value_is_refused(operation):
    with pytest.raises(AlgebraError, match="factor"):
        operation(Vector.of({0: torch.ones(2)}))
    with pytest.raises(AlgebraError, match="factor"):
        operation(Vector({Weight("w"): Dense(torch.ones(2))}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_direction_that_is_not_finite_is_refused(value: float):
    with pytest.raises(AlgebraError, match=r"not finite(.|\n)*1 of 2 values"):
        Direction(torch.tensor([1.0, value]))


@pytest.mark.parametrize(
    "operation",
    [
        lambda u: u + 1,
        lambda u: u - 1,
        lambda u: 1 + u,
        lambda u: True * u,
        lambda u: u * "2",
        lambda u: u * u,
        lambda u: u / True,
        lambda u: u / u,
        lambda u: np.ones(2) * u,
        lambda u: u * 1j,
        lambda u: u @ 2,
    ],
)
def test_what_is_no_operation_of_a_vector_space_is_a_type_error(operation):
    with pytest.raises(TypeError):
        operation(Vector.of({0: torch.ones(2)}))


def test_terms_of_different_spaces_do_not_add():
    with pytest.raises(AlgebraError, match=r"Direction\(2,\) \+ Direction\(3,\)"):
        Vector.of({0: torch.ones(2)}) + Vector.of({0: torch.ones(3)})
    with pytest.raises(AlgebraError, match="different shapes"):
        Vector.of({0: torch.ones(2)}) @ Vector.of({0: torch.ones(3)})
    a, b = (Vector({Weight("w"): Dense(torch.ones(n, 2))}) for n in (2, 3))
    with pytest.raises(AlgebraError, match="different spaces"):
        a + b


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({}, "at least one site"),
        ({Residual(0): Dense(torch.ones(2))}, "wrong kind"),
        ({Weight("w"): Direction(torch.ones(2))}, "wrong kind"),
        ({0: Direction(torch.ones(2))}, "wrong kind"),
        ({Residual(0): torch.ones(2)}, "wrong kind"),
        ({EMBED: Direction(torch.ones(2)), Residual(1): Direction(torch.ones(3))}, r"\[2, 3\]"),
    ],
)
def test_terms_that_form_no_vector_are_refused(terms, message):
    with pytest.raises(AlgebraError, match=message):
        Vector(terms)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Direction([1.0]), "list"),
        (lambda: Direction(torch.ones(2, dtype=torch.int64)), "int64"),
        (lambda: Direction(torch.ones(2).to(torch.float8_e4m3fn)), "float8"),
        (lambda: Direction(torch.ones(2, 2)), "1 dimension"),
        (lambda: LowRank(torch.ones(2), torch.ones(2, 2)), "2 dimension"),
        (lambda: LowRank(torch.ones(2, 1), torch.ones(2, 2)), "do not chain"),
        (lambda: LowRank(torch.ones(2, 1), torch.ones(1, 2).half()), "float16"),
        (lambda: Dense(torch.ones(2, dtype=torch.bool)), "bool"),
    ],
)
def test_tensors_that_form_no_term_are_refused(build, message):
    with pytest.raises(AlgebraError, match=message):
        build()
