"""Running programs that a model wrote, under limits.

Each program gets a process of its own, with a time limit, a memory limit, no further processes, no
inherited environment and an empty folder that is deleted afterwards; its whole process group is
killed when it ends. Where the kernel allows it, the process also has no network and its own process
table, so that nothing of it outlives it. It can still read what the user can read and write where
the user can write: this is a limit against accidents, and no jail. For programs of an adversary use
a virtual machine.
"""

import contextlib
import json
import math
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Literal

from tqdm.auto import tqdm

from steer.errors import HarnessError

Outcome = Literal["passed", "failed", "exited", "timeout", "killed"]
_CHILD = Path(__file__).with_name("_child.py")
_UNSHARE = ("--user", "--map-root-user", "--net", "--ipc", "--pid", "--fork", "--kill-child")
_MEGABYTE = 2**20
_LONGEST = 4096  # bytes of a verdict


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """What one program may use.

    Args:
        seconds: Wall-clock time.
        memory: Address space, megabytes.
        file_size: Size of each file written, megabytes.
        at_once: Programs run at the same time.

    Raises:
        HarnessError: A limit is not positive and finite.
    """

    seconds: float = 10.0
    memory: int = 1024
    file_size: int = 16
    at_once: int = 1

    def __post_init__(self) -> None:
        given = (self.seconds, self.memory, self.file_size, self.at_once)
        if not all(math.isfinite(limit) and limit > 0 for limit in given):
            raise HarnessError(
                "a program needs some room",
                found=repr(self),
                expected="finite limits above 0",
                do="leave them out, or make them larger",
            )


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a program ended.

    Args:
        outcome: `passed` if it ran to its end; `failed` if it raised, `exited` if it called
            `sys.exit`, as `unittest.main()` does whatever it found; `timeout` at the time limit,
            `killed` if it ended in another way.
        error: Type and message of what it raised.
    """

    outcome: Outcome
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether the program, tests included, ran to its end."""
        return self.outcome == "passed"


_allowed: ContextVar[tuple[SandboxLimits, bool] | None] = ContextVar("allowed", default=None)


@contextlib.contextmanager
def code_execution(limits: SandboxLimits, *, progress: bool = False) -> Iterator[None]:
    """Allow programs to be run inside this context, under these limits.

    Args:
        limits: What each program may use.
        progress: Whether to show a progress bar.
    """
    token = _allowed.set((limits, progress))
    try:
        yield
    finally:
        _allowed.reset(token)


def run_programs(sources: Sequence[str]) -> list[Verdict]:
    """Run Python programs, each in a limited process of its own.

    Args:
        sources: The programs, tests included.

    Returns:
        One verdict per program, in their order.

    Raises:
        HarnessError: Not inside `code_execution`.
    """
    allowed = _allowed.get()
    if allowed is None:
        raise HarnessError(
            "programs written by a model are not run unasked",
            found="no permission to execute code",
            expected="an explicit permission",
            do="pass allow_code_execution=True, or run them inside code_execution(SandboxLimits())",
        )
    limits, progress = allowed
    with ThreadPoolExecutor(limits.at_once) as pool:
        found = pool.map(lambda source: _run(source, limits), sources)
        return list(tqdm(found, desc="programs", total=len(sources), disable=not progress))


@cache
def isolation() -> str:
    """Return what keeps programs in: `namespaces and limits`, or `limits` alone.

    With namespaces a program has no network, and nothing that it starts outlives it.
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        return "limits"
    tried = subprocess.run([unshare, *_UNSHARE, "true"], capture_output=True, check=False)
    return "namespaces and limits" if tried.returncode == 0 else "limits"


def _run(source: str, limits: SandboxLimits) -> Verdict:
    word = secrets.token_hex(16)
    request = {
        "source": source,
        "word": word,
        "memory": limits.memory * _MEGABYTE,
        "cpu": int(limits.seconds) + 1,
        "file_size": limits.file_size * _MEGABYTE,
    }
    with (
        tempfile.TemporaryDirectory(prefix="steer-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as out,  # a file: its size is limited, a pipe's is not
    ):
        process = _start(folder, out)
        try:
            process.communicate(json.dumps(request).encode() + b"\n", timeout=limits.seconds)
        except subprocess.TimeoutExpired:
            return Verdict("timeout", f"not done after {limits.seconds:g} s")
        finally:
            _kill(process)
        out.seek(0)
        return _read(out.read(_LONGEST), word, process.returncode)


def _start(folder: str, out: IO[bytes]) -> "subprocess.Popen[bytes]":
    prefix = [str(shutil.which("unshare")), *_UNSHARE] if "namespaces" in isolation() else []
    return subprocess.Popen(
        [*prefix, sys.executable, "-I", "-B", str(_CHILD)],
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={
            "PATH": os.defpath,
            "HOME": folder,
            "TMPDIR": folder,
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        },
        start_new_session=True,
    )


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill the whole process group, and take in what is left of the process."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    process.wait()


def _read(written: bytes, word: str, status: int) -> Verdict:
    try:
        said, outcome, error = json.loads(written)
    except (ValueError, TypeError, RecursionError):  # the program wrote there itself
        return Verdict("killed", f"ended without a verdict, status {status}")
    if said != word:
        return Verdict("killed", "a verdict that is not the runner's")
    return Verdict(outcome, error)
