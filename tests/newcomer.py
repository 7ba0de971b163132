"""A newcomer's way, timed: `python -m tests.newcomer`.

Clones the repository as it was committed, makes a fresh environment, installs as
`docs/quickstart.md` says, and runs that page's code up to the first steered text, the installed
package alone in sight. Prints wall and CPU seconds of each step. What is only waiting for the
network, fetching the packages, stands apart; the rest must stay below five minutes.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.repository.blocks import ROOT, page

LIMIT = 300.0  # wall seconds, fetching left out
_STEERED = "with lm.steered("  # the block that holds this is the last one run
_PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")


def main() -> int:
    """Return 0 if the first steered text came in time."""
    with tempfile.TemporaryDirectory(prefix="newcomer-") as name:
        seconds = _steps(Path(name))
    own = sum(wall for step, (wall, _) in seconds.items() if step != "fetch")
    for step, (wall, cpu) in seconds.items():
        apart = "  not counted" if step == "fetch" else ""
        _say(f"{step:<12} {wall:7.1f} s wall {cpu:7.1f} s CPU{apart}")
    _say(f"{'in all':<12} {own:7.1f} s wall, limit {LIMIT:g} s")
    return 0 if own <= LIMIT else 1


def _steps(folder: Path) -> dict[str, tuple[float, float]]:
    """Return wall and CPU seconds of each step."""
    clone, wheels, environment = folder / "clone", folder / "wheels", folder / "venv"
    python = str(environment / "bin" / "python")
    pinned = ("-c", str(clone / "constraints.txt"))
    code = folder / "quickstart.py"
    empty = folder / "work"
    empty.mkdir()
    found = {"clone": _timed(["git", "clone", "--quiet", str(ROOT), str(clone)], folder)}
    start = time.perf_counter(), time.process_time()
    venv.create(environment, with_pip=True)
    found["environment"] = time.perf_counter() - start[0], time.process_time() - start[1]
    fetch = [python, *_PIP, "download", "-d", str(wheels), *pinned]
    found["fetch"] = _timed([*fetch, str(clone), "hatchling"], folder)
    install = [python, *_PIP, "install", "--no-index", "--find-links", str(wheels), *pinned]
    found["install"] = _timed([*install, str(clone)], folder)
    code.write_text(_first_steps(clone / "docs" / "quickstart.md"), encoding="utf-8")
    found["first text"] = _timed([python, str(code)], empty, {"PYTHONWARNINGS": "ignore"})
    return found


def _first_steps(quickstart: Path) -> str:
    """Return the page's code up to the first steered text."""
    taken = []
    for block in page(quickstart).blocks:
        if block.kind == "python" and not block.skipped:
            taken.append(block.text)
            if _STEERED in block.text:
                return "\n".join(taken)
    raise RuntimeError(f"{quickstart.name} steers no text")


def _timed(
    command: Sequence[str], folder: Path, more: Mapping[str, str] | None = None
) -> tuple[float, float]:
    """Run a command to its end and return its wall and CPU seconds."""
    _say(f"$ {' '.join(command)}")
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    before, start = _children(), time.perf_counter()
    subprocess.run(command, cwd=folder, env={**clean, **(more or {})}, check=True)
    return time.perf_counter() - start, _children() - before


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
