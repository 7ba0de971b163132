"""The programs that a model writes: run in containers through Inspect's sandbox, and counted."""

import re
import secrets
import subprocess
import tempfile
from collections.abc import Sequence
from math import comb
from pathlib import Path
from typing import Any

from steer import _check
from steer.errors import ArgumentError, CapabilityError, HarnessError

_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.S | re.I)
_KS = (1, 10, 100)
SANDBOX: Any = ("docker", str(Path(__file__).with_name("compose.yaml")))
_SECONDS = 10
_DRIVER = """
import sys
word, write = sys.argv[1], sys.stdout.write
exec(compile(sys.stdin.read(), "<program>", "exec"), {"__name__": "__main__"})
write(word)
"""


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


def check_sandbox(tasks: Sequence[str]) -> None:
    """Refuse tasks that run programs where Inspect or a container engine is missing."""
    programs = f"running the programs of {' and '.join(tasks)}"
    _check.need(programs, "inspect_ai", extra="inspect")
    try:
        for command in (["docker", "version"], ["docker", "compose", "version"]):
            subprocess.run(command, capture_output=True, check=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or error
        raise CapabilityError(
            "programs that a model wrote run in containers only, and no container engine answers",
            found=f"{', '.join(tasks)}; {' '.join(command)}: {said}".strip(),
            expected="a running Docker Engine with Compose",
            do="install and start it (https://docs.docker.com/engine/install/), or leave these "
            "tasks out",
        ) from error


def run_programs(sources: Sequence[str]) -> list[dict[str, str]]:
    """Return `outcome` and `error` of Python programs, each run in a container of its own.

    `passed` is a program that ran to its end, `exited` one that left early with status 0, `failed`
    one that ended in another way, `timeout` one that did not end.
    """
    from inspect_ai import Task
    from inspect_ai import eval as run_tasks
    from inspect_ai.dataset import Sample
    from inspect_ai.solver import solver

    word = secrets.token_hex(16)

    @solver  # type: ignore[untyped-decorator]
    def run() -> Any:
        async def solve(state: Any, generate: Any) -> Any:
            state.metadata["verdict"] = await _verdict(sources[state.sample_id], word)
            return state

        return solve

    samples = [Sample(id=k, input="", metadata={}) for k in range(len(sources))]
    task = Task(dataset=samples, solver=run(), sandbox=SANDBOX)
    with tempfile.TemporaryDirectory(prefix="steer-") as folder:
        (log,) = run_tasks(task, model="mockllm/model", display="none", log_dir=folder)
        samples = log.samples or []
    if log.status != "success":
        raise HarnessError(
            "the programs could not be run",
            found=log.status if log.error is None else log.error.message,
            expected="a container for each program",
            do="see whether `docker compose` works here and can fetch the image python:3.12-slim",
        )
    verdicts = {sample.id: sample.metadata["verdict"] for sample in samples}
    return [verdicts[k] for k in range(len(sources))]


async def _verdict(source: str, word: str) -> dict[str, str]:
    """Return how one program ended, in the sandbox of the sample that is being run."""
    from inspect_ai.util import OutputLimitExceededError, sandbox

    command = ["python3", "-I", "-c", _DRIVER, word]
    try:
        done = await sandbox().exec(command, input=source, timeout=_SECONDS, timeout_retry=False)
    except TimeoutError:
        return {"outcome": "timeout", "error": f"not done after {_SECONDS} s"}
    except (UnicodeError, OutputLimitExceededError) as error:
        return {"outcome": "failed", "error": f"{type(error).__name__}: {error}"[:300]}
    if done.success:
        return {"outcome": "passed" if done.stdout.endswith(word) else "exited", "error": ""}
    last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    return {"outcome": "failed", "error": last[:300]}
