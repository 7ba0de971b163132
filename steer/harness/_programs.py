"""From completions to programs with their tests, and from how many pass to pass@k."""

import re
from collections.abc import Sequence
from math import comb
from typing import Any

from steer.errors import ArgumentError
from steer.harness._sandbox import run_programs

_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.S | re.I)
_KS = (1, 10, 100)


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
        ArgumentError: Not 0 ≤ passed ≤ n, or not 1 ≤ k ≤ n.

    Reference:
        arXiv 2107.03374, equation 1.
    """
    if not (0 <= passed <= n and 1 <= k <= n):
        raise ArgumentError(
            "pass@k cannot be estimated",
            found=f"n={n}, passed={passed}, k={k}",
            expected="0 <= passed <= n and 1 <= k <= n",
            do="draw at least k samples of each problem",
        )
    return 1.0 - comb(n - passed, k) / comb(n, k)


def code_of(text: str) -> str:
    """Return the first fenced block of an answer, or all of it if it has none."""
    block = _FENCE.search(text)
    return block.group(1) if block else text


def program(document: dict[str, Any], completion: str) -> str:
    """Return what a problem puts before a completion, its code, and the tests."""
    return f"{document['before']}{code_of(completion)}\n{document['after']}\n"


def graded(
    answers: Sequence[Sequence[str]], documents: Sequence[dict[str, Any]]
) -> list[list[dict[str, str]]]:
    """Return `program`, `outcome` and `error` of each completion; a filter of the task files."""
    sources = [
        [program(document, text) for text in texts]
        for texts, document in zip(answers, documents, strict=True)
    ]
    verdicts = iter(run_programs([source for group in sources for source in group]))
    return [[{"program": source, **next(verdicts)} for source in group] for group in sources]


def pass_rates(
    document: dict[str, Any], results: Sequence[Sequence[dict[str, str]]]
) -> dict[str, float]:
    """Return pass@k of one problem, for k = 1, 10, 100 as far as there are samples."""
    (found,) = results
    passed = sum(one["outcome"] == "passed" for one in found)
    return {f"pass@{k}": pass_at_k(len(found), passed, k) for k in _KS if k <= len(found)}
