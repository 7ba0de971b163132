"""How likely one of k programs passes, from how many of n did."""

from math import comb

from steer.errors import HarnessError


def pass_at_k(n: int, passed: int, k: int) -> float:
    """Return the unbiased estimate of the chance that at least one of k samples passes.

    1 − C(n − c, k) / C(n, k), where c of n independent samples passed. The plug-in estimate
    1 − (1 − c/n)^k is biased downwards.

    Args:
        n: Samples drawn.
        passed: Samples that passed, c.
        k: Samples allowed, at most n.

    Returns:
        The estimate, in [0, 1].

    Raises:
        HarnessError: Not 0 ≤ passed ≤ n, or not 1 ≤ k ≤ n.

    Reference:
        arXiv 2107.03374, equation 1.
    """
    if not (0 <= passed <= n and 1 <= k <= n):
        raise HarnessError(
            "pass@k cannot be estimated",
            found=f"n={n}, passed={passed}, k={k}",
            expected="0 <= passed <= n and 1 <= k <= n",
            do="draw at least k samples of each problem",
        )
    return 1.0 - comb(n - passed, k) / comb(n, k)
