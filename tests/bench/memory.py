"""Peak memory above the loaded model while 100 pairs are recorded.

Each method runs in a process of its own (`peak.py`): the model is built, the high-water mark of
resident memory is set back (`/proc/self/clear_refs`), the method runs on all pairs, and the mark
is read (`VmHWM`); what was resident before is subtracted. Nothing is warmed up, so that what
libraries and allocators take at first use counts.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.lines import Estimate, Limit, Line
from tests.bench.registry import Options, bench

_ROOT = Path(__file__).parents[2]
_RUNS = 3


@bench("memory")
def memory(options: Options) -> Iterator[Line]:
    """Peak memory above the model while recording 100 pairs; the peers beside."""
    runs = 1 if options.quick else _RUNS
    names = ["steer, response_mean", "steer, template", "bare body, one text at a time"]
    names += ["steering-vectors, batch 1", "repeng, pca_center, batch 4"]
    names += [] if options.quick else ["steering-vectors, batch 16", "repeng, pca_center, batch 32"]
    for name in names:
        peaks = [_peak(name) for _ in range(runs if name.startswith("steer,") else 1)]
        estimate = Estimate(statistics.median(peaks), min(peaks), max(peaks))
        limit = Limit(256.0) if name.startswith("steer,") else None
        label = "memory." + name.replace(", ", ".").replace(" ", "_")
        what = f"{name}: peak above the model, 100 pairs [least, most]"
        yield Line(label, what, estimate, len(peaks), limit, "MiB", "", tuple(peaks))


def _peak(name: str) -> float:
    """Return the peak of a method in MiB, from a process of its own."""
    command = [sys.executable, "-m", "tests.bench.peak", name]
    done = subprocess.run(
        command, cwd=_ROOT, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1]))
