"""What is printed: the head, one line per figure, and the samples as JSON."""

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from tests.bench.lines import Line

_PEERS = ("steering-vectors", "repeng", "mergekit")
_PACKAGES = ("residual-steer", "torch", "transformers", *_PEERS, "numpy")


def say(text: str = "") -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def head() -> dict[str, str]:
    """Return what the figures depend on beside the code."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "python": platform.python_version(),
        **versions,
        "torch threads": str(torch.get_num_threads()),
        "cores": str(os.cpu_count()),
    }


def shown(line: Line) -> str:
    """Return a figure as text."""
    e, unit = line.estimate, f" {line.unit}" if line.unit else ""
    figure = f"{_number(e.median)} [{_number(e.low)}, {_number(e.high)}]{unit}"
    limit = "" if line.limit is None else str(line.limit)
    text = _row(line.name, figure, limit, line.status, line.rounds, line.what)
    return text if not line.note else f"{text}\n{'':<37}{line.note}"


def columns() -> str:
    """Return the heading of the lines."""
    return _row("figure", "median [95%]", "limit", "", "n", "what")


def _row(name: str, figure: str, limit: str, status: str, n: object, what: str) -> str:
    return f"{name:<36} {figure:<22} {limit:<8} {status:<10} {n:>3}  {what}"


def write_samples(path: Path, lines: Sequence[Line]) -> None:
    """Write every sample of every figure as JSON."""
    rows = [asdict(line) | {"status": line.status} for line in lines]
    path.write_text(json.dumps({"head": head(), "lines": rows}, indent=1) + "\n")


def _number(x: float) -> str:
    if x == 0 or abs(x) >= 1e-3:
        return f"{x:.3f}" if abs(x) < 100 else f"{x:.0f}"
    return f"{x:.1e}"
