"""Student's t distribution: its tail and the quantile of 95% intervals."""

import math

from steer.measure._interval import Z95

_MANY = 500  # degrees of freedom from which three terms of the series give eight digits


def student(freedom: int) -> float:
    """Return the 97.5% quantile of Student's t distribution.

    Args:
        freedom: Degrees of freedom, at least 1.
    """
    if freedom > _MANY:
        first, second = Z95**3 + Z95, 5 * Z95**5 + 16 * Z95**3 + 3 * Z95
        return Z95 + first / (4 * freedom) + second / (96 * freedom**2)
    low, high = 0.0, math.pi / 2  # t = √ν tan θ makes the range finite
    for _ in range(60):
        angle = (low + high) / 2
        tail = student_tail(math.sqrt(freedom) * math.tan(angle), freedom)
        low, high = (angle, high) if tail > 0.025 else (low, angle)
    return math.sqrt(freedom) * math.tan(low)


def student_tail(t: float, freedom: int) -> float:
    """Return P(T ≥ t) of Student's distribution, by the finite sums for whole degrees of freedom.

    Args:
        t: The number.
        freedom: Degrees of freedom, at least 1.
    """
    if t < 0:
        return 1.0 - student_tail(-t, freedom)
    x = freedom / (freedom + t * t)
    return 0.5 * _beta(x, freedom / 2)


def _beta(x: float, a: float) -> float:
    """Return the regularised incomplete beta function I_x(a, 1/2), by the series in x.

    I_x(a, b) = x^a / (a B(a, b)) · Σ_n (1 − b)_n a / (n! (a + n)) x^n, which keeps its relative
    precision in the tail, where a difference from 1 would not.
    """
    if x >= 1.0:
        return 1.0
    if x > 0.9:  # near t = 0 the series is slow, and the complement's is not small
        return 1.0 - _mirrored(1.0 - x, a)
    log_front = a * math.log(x) - _log_beta(a) - math.log(a) if x > 0 else -math.inf
    total, term, n = 1.0, 1.0, 0
    while n < 2000:
        n += 1
        term *= x * (n - 0.5) / n
        add = term * a / (a + n)
        total += add
        if add < 1e-17 * total:
            break
    return math.exp(log_front) * total


def _mirrored(y: float, a: float) -> float:
    """Return I_y(1/2, a) by the same series."""
    total, term, n = 1.0, 1.0, 0
    while n < 2000:
        n += 1
        term *= y * (n - a) / n
        add = term * 0.5 / (0.5 + n)
        total += add
        if abs(add) < 1e-17 * abs(total):
            break
    return math.exp(0.5 * math.log(y) - _log_beta(a)) * 2.0 * total if y > 0 else 0.0


def _log_beta(a: float) -> float:
    return math.lgamma(a) + math.lgamma(0.5) - math.lgamma(a + 0.5)
