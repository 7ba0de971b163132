"""Differences between neighbours, where float32 is enough, are as exact as all else."""

import math
from unittest import mock

import pytest
import torch
from torch import Tensor

from steer.errors import MergeError
from steer.merge import Difference
from steer.merge import _rounding as rounding
from steer.merge._rounding import rounded
from tests.merge import exact

COEFFICIENTS = (0.5, 0.3, 1.0, -0.3, -0.5, 0.1, 0.7, 1.7, 2.0, -2.0, 0.123456, 3 / 256, 1 / 3)
FINER = (-1561 / 1040, -1563 / 1040)  # 65 steps above 128: next to a tie three binades below


def neighbours(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Values at the ends of their binades, subnormal and negative ones too, and some steps off."""
    digits = exact.FORMATS[dtype][0] - 1
    ends = [e << digits for e in (0, 1, 2, 9, 13, 2 ** (15 - digits) - 2)]
    lows = [e + n for e in ends for n in (*range(4), 2 ** (digits - 1), *range(-4, 0))]
    starts = [n for n in lows if 0 <= n < (2 ** (15 - digits) - 1) << digits]
    steps = (-65, -60, -31, -15, -5, -3, -2, -1, 0, 1, 2, 3, 4, 5, 10, 25, 50, 65)
    base = torch.tensor([n for n in starts for _ in steps], dtype=torch.int16)
    near = torch.tensor([max(n + k, 0) for n in starts for k in steps], dtype=torch.int16)
    both = torch.stack([base, near]).view(dtype)
    both = torch.where(torch.isfinite(both), both, 1.0)
    base, near = torch.cat([both, -both, torch.stack([both[0], -both[1]])], dim=1)
    return base, near


@pytest.mark.parametrize("coefficient", [*COEFFICIENTS, *FINER])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_values_near_the_ends_of_binades(dtype: torch.dtype, coefficient: float) -> None:
    base, aligned = neighbours(dtype)
    expected = exact.merged(base, [(aligned, coefficient), (base, -coefficient)])
    kept = torch.isfinite(expected)
    base, aligned = base[kept].clone(), aligned[kept].clone()
    found = rounded(base, [(Difference(aligned, base), coefficient)])
    assert torch.equal(found, expected[kept])


def test_the_other_ways_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    base = (torch.randn(300_001, generator=generator) * 0.02).bfloat16()
    noise = torch.randn(300_001, generator=generator) * 2e-4
    aligned = (base.float() + noise).bfloat16()
    for coefficient in COEFFICIENTS:
        found = rounded(base, [(Difference(aligned, base), coefficient)])
        with mock.patch.object(rounding.Near, "of", return_value=None):
            assert torch.equal(rounded(base, [(Difference(aligned, base), coefficient)]), found)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("coefficient", [0.3, 0.5, -0.5])
def test_what_is_not_finite_is_refused(value: float, coefficient: float) -> None:
    base = torch.tensor([1.0, value], dtype=torch.bfloat16)
    for aligned in (base.clone(), torch.ones(2, dtype=torch.bfloat16)):
        with pytest.raises(MergeError, match="not finite"):
            rounded(base, [(Difference(aligned, base), coefficient)])


def test_a_result_beyond_the_largest_number_is_refused() -> None:
    base = torch.tensor([3.0e38], dtype=torch.bfloat16)
    aligned = torch.tensor([3.38e38], dtype=torch.bfloat16)
    with pytest.raises(MergeError, match="not finite"):
        rounded(base, [(Difference(aligned, base), 2.0)])
