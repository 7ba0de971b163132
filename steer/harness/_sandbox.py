"""The one way to run programs that a model wrote: in containers, through Inspect's sandbox."""

import secrets
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steer import _check
from steer.errors import CapabilityError, HarnessError

SANDBOX: Any = ("docker", str(Path(__file__).with_name("compose.yaml")))
_SECONDS = 10
_DRIVER = """
import sys
word, write = sys.argv[1], sys.stdout.write
exec(compile(sys.stdin.read(), "<program>", "exec"), {"__name__": "__main__"})
write(word)
"""


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
