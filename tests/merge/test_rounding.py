"""Every merged weight is a float64 sum cast to its dtype, compared with Python's floats."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from steer.algebra import Dense, Direction, LowRank
from steer.errors import MergeError
from steer.merge._rounding import Difference, rounded
from tests.merge import exact

NARROW = [torch.bfloat16, torch.float16, torch.float32]
DTYPES = [*NARROW, torch.float64]
COEFFICIENTS = [0.3, 0.5, -1.0, 0.7, 1 / 3, -0.25, 1e-3, 2.0**-30]


def drawn(seed: int, dtype: torch.dtype, scale: float, n: int = 3000) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, generator=generator, dtype=torch.float64) * scale).to(dtype)


def of_bits(bits: list[int], dtype: torch.dtype) -> Tensor:
    """Numbers from their bit patterns; what is not finite becomes zero."""
    width = torch.finfo(dtype).bits
    integer = {16: torch.int16, 32: torch.int32, 64: torch.int64}[width]
    signed = [b % 2**width - (2**width if b % 2**width >= 2 ** (width - 1) else 0) for b in bits]
    values = torch.tensor(signed, dtype=integer).view(dtype)
    return torch.where(torch.isfinite(values), values, 0.0)


@pytest.mark.parametrize("coefficient", COEFFICIENTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_element_is_a_float64_sum_cast_once(dtype: torch.dtype, coefficient: float) -> None:
    base, delta = drawn(0, dtype, 0.02), drawn(1, torch.bfloat16, 5e-4)
    expected = exact.merged(base, [(delta, coefficient)])
    assert torch.equal(rounded(base, [(Dense(delta), coefficient)]), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_sum_beside_a_midpoint_is_half_a_step_off_to_float32(dtype: torch.dtype) -> None:
    """torch casts float64 to 16 bits through float32, which may end on the midpoint itself."""
    lower = of_bits(list(range(1, 2**15, 97)), dtype)
    upper = of_bits(list(range(2, 2**15, 97)), dtype)
    base, half = lower[upper > lower], ((upper.double() - lower.double()) / 2)[upper > lower]
    for coefficient in (1.0, 1.0 + 2.0**-30, 1.0 - 2.0**-30):
        found = rounded(base, [(Dense(half), coefficient)])
        assert torch.equal(found, exact.merged(base, [(half, coefficient)]))
        off = (found.double() - (base.double() + coefficient * half)).abs()
        assert (off <= half * (1 + 2.0**-12)).all()


@pytest.mark.parametrize("coefficient", COEFFICIENTS)
@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_a_difference_is_taken_in_float64(dtype: torch.dtype, coefficient: float) -> None:
    base = drawn(0, dtype, 0.02)
    aligned = (base.double() + drawn(1, torch.float64, 5e-4)).to(dtype)
    aligned[::5] = drawn(2, dtype, 1.0)[::5]
    expected = exact.merged(base, [((aligned, base), coefficient)])
    assert torch.equal(rounded(base, [(Difference(aligned, base), coefficient)]), expected)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_a_whole_difference_gives_the_aligned_weights(dtype: torch.dtype) -> None:
    base, aligned = drawn(0, dtype, 0.02), drawn(1, dtype, 0.02)
    assert torch.equal(rounded(base, [(Difference(aligned, base), 1.0)]), aligned)


def test_a_difference_of_a_wider_dtype() -> None:
    base, left = drawn(0, torch.bfloat16, 0.02), drawn(1, torch.float64, 0.02)
    right = drawn(2, torch.float64, 0.02)
    expected = exact.merged(base, [((left, right), 0.3)])
    assert torch.equal(rounded(base, [(Difference(left, right), 0.3)]), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_several_deltas_are_cast_once(dtype: torch.dtype) -> None:
    base = drawn(0, dtype, 0.02)
    deltas = [
        (drawn(k, delta, 5e-4), c)
        for k, (delta, c) in enumerate(
            [(torch.bfloat16, 0.3), (torch.float32, -0.7), (torch.float64, 0.1)], start=1
        )
    ]
    expected = exact.merged(base, deltas)
    assert torch.equal(rounded(base, [(Dense(d), c) for d, c in deltas]), expected)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_exact_ties_go_to_the_even_neighbour(dtype: torch.dtype) -> None:
    base = torch.arange(1, 257, dtype=torch.float64).to(dtype)
    digits = exact.FORMATS[dtype][0]
    ulps = torch.tensor(
        [2.0 ** (math.floor(math.log2(x)) - digits + 1) for x in base.tolist()],
        dtype=torch.float64,
    )
    delta = Dense(ulps.float())
    for coefficient in (0.5, -0.5, 1.5, 0.5 + 2**-52, 0.5 - 2**-53):
        expected = exact.merged(base, [(delta.W, coefficient)])
        assert torch.equal(rounded(base, [(delta, coefficient)]), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(
    bits=st.lists(
        st.tuples(*[st.integers(0, 2**64 - 1)] * 3, st.integers(-4, 4)), min_size=1, max_size=40
    ),
    coefficients=st.tuples(*[st.floats(-2, 2, allow_subnormal=False)] * 2),
)
@settings(max_examples=60, deadline=None)
def test_any_bits(
    dtype: torch.dtype, bits: list[tuple[int, int, int, int]], coefficients: tuple[float, float]
) -> None:
    """Bases, subnormal ones too, with deltas of the same few steps and of any size."""
    base = of_bits([b for b, *_ in bits], dtype) / 4
    near = of_bits([b + k for b, _, _, k in bits], dtype) / 4
    other = of_bits([b for _, _, b, _ in bits], torch.bfloat16)
    limit = 2.0**120 if dtype != torch.float16 else 2.0**10
    other = other.clamp(-limit, limit)
    a, b = coefficients
    expected = exact.merged(base, [((near, base), a), (other, b)])
    if not torch.isfinite(expected).all():
        with pytest.raises(MergeError, match="not finite"):
            rounded(base, [(Difference(near, base), a), (Dense(other), b)])
        return
    found = rounded(base, [(Difference(near, base), a), (Dense(other), b)])
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_subnormals_are_rounded_to_their_own_step(dtype: torch.dtype) -> None:
    base = of_bits(list(range(600)), dtype)
    base = torch.cat([base, -base])
    least = 2.0 ** exact.FORMATS[dtype][1]
    delta = torch.full_like(base, least)
    for coefficient in (0.5, -0.5, 0.3, 7.7, 0.5 - 2**-20, 0.5 + 2**-20):
        expected = exact.merged(base, [(delta, coefficient)])
        assert torch.equal(rounded(base, [(Dense(delta), coefficient)]), expected)


@pytest.mark.parametrize("coefficient", [1e-40, 1e30, -1e-60])
def test_coefficients_outside_the_range_of_float32(coefficient: float) -> None:
    base = drawn(0, torch.bfloat16, 1.0, 500)
    delta = drawn(1, torch.float64, 1.0, 500) * (0.3 / abs(coefficient))
    expected = exact.merged(base, [(delta, coefficient)])
    assert torch.equal(rounded(base, [(Dense(delta), coefficient)]), expected)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_a_low_rank_term_is_its_float64_product(dtype: torch.dtype) -> None:
    base = drawn(0, dtype, 0.02, 60 * 50).reshape(60, 50)
    term = LowRank(
        drawn(1, torch.float32, 0.02, 60 * 4).reshape(60, 4),
        drawn(2, torch.float32, 0.02, 4 * 50).reshape(4, 50),
    )
    product = term.B.double() @ term.A.double()
    exactly = [
        [
            sum(Fraction(b) * Fraction(a) for b, a in zip(row, column, strict=True))
            for column in cols
        ]
        for cols in [term.A.T.tolist()]
        for row in term.B.tolist()
    ]
    worst = max(
        abs(Fraction(float(product[i, j])) - exactly[i][j]) for i in range(60) for j in range(50)
    )
    bound = 4 * 2.0**-53 * float((term.B.double().abs() @ term.A.double().abs()).max())
    assert float(worst) <= bound
    expected = exact.merged(base, [(product, 0.3)])
    assert torch.equal(rounded(base, [(term, 0.3)]), expected)


def test_blocks_and_rows_do_not_meet_at_the_same_places() -> None:
    """More elements than a block holds, a row length that divides none, an odd total."""
    out, width = 1031, 2053
    base = drawn(0, torch.bfloat16, 0.02, out * width).reshape(out, width)
    B, A = drawn(1, torch.float32, 0.02, out).reshape(out, 1), drawn(2, torch.float32, 0.02, width)
    product = B.double() * A.double()
    found = rounded(base, [(LowRank(B, A[None]), 0.37)])
    assert torch.equal(found, rounded(base, [(Dense(product), 0.37)]))
    rows = torch.arange(0, out, 101)
    expected = exact.merged(base[rows], [(product[rows], 0.37)])
    assert torch.equal(found[rows], expected)


def test_without_anything_to_add_the_bits_are_those_of_the_base() -> None:
    base = torch.tensor([-0.0, 0.0, 1.0, 2.0**-133, math.inf, math.nan], dtype=torch.bfloat16)
    delta = Dense(torch.ones(6))
    for deltas in ([], [(delta, 0.0)], [(delta, -0.0)]):
        found = rounded(base, deltas)
        assert torch.equal(found.view(torch.int16), base.view(torch.int16))
        assert found.data_ptr() != base.data_ptr()


def test_shape_strides_and_inputs_are_left_alone() -> None:
    whole = drawn(0, torch.bfloat16, 0.02, 24).reshape(4, 6)
    base, delta = whole.T, drawn(1, torch.float32, 0.02, 24).reshape(4, 6).T
    before = whole.clone()
    found = rounded(base, [(Dense(delta), 0.3)])
    assert found.shape == (6, 4)
    assert torch.equal(found, exact.merged(base, [(delta, 0.3)]))
    assert torch.equal(whole, before)
    assert rounded(torch.tensor(1.0), [(Dense(torch.tensor(2.0)), 0.5)]).shape == ()
    assert rounded(torch.empty(0, 3), [(Dense(torch.empty(0, 3)), 0.5)]).shape == (0, 3)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_a_sum_beyond_the_largest_number_is_refused(dtype: torch.dtype) -> None:
    top = torch.finfo(dtype).max
    base = torch.tensor([1.0, top], dtype=dtype)
    gap = top * torch.finfo(dtype).eps / 2  # between the two largest numbers
    below, above = 0.49 * gap, 0.51 * gap
    found = rounded(base, [(Dense(torch.tensor([0.0, 1.0])), below)])
    assert torch.equal(found, base)
    with pytest.raises(MergeError, match="a_name: a merged weight is not finite"):
        rounded(base, [(Dense(torch.tensor([0.0, 1.0])), above)], name="a_name")


@pytest.mark.parametrize(
    ("base", "delta", "coefficient"),
    [
        (torch.ones(2), torch.tensor([0.0, math.nan]), 0.5),
        (torch.ones(2), torch.tensor([0.0, math.inf]), 0.5),
        (torch.tensor([1.0, math.nan]), torch.ones(2), 0.5),
        (torch.tensor([1.0, math.inf]).bfloat16(), torch.ones(2), 0.5),
        (torch.ones(2), torch.ones(2), math.nan),
        (torch.ones(2), torch.ones(2), math.inf),
        (torch.ones(2), torch.ones(3), 0.5),
    ],
)
def test_what_cannot_be_merged_is_refused(base: Tensor, delta: Tensor, coefficient: float) -> None:
    with pytest.raises(MergeError):
        rounded(base, [(Dense(delta), coefficient)])


def test_a_direction_is_refused() -> None:
    with pytest.raises(MergeError, match="direction"):
        rounded(torch.ones(2), [(Direction(torch.ones(2)), 1.0)])
