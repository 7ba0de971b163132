"""What `import steer` takes once torch is there, each time in a fresh process."""

import os
import subprocess
import sys
from collections.abc import Iterator

from tests.bench.lines import Limit, Line, estimate
from tests.bench.registry import Options, bench

LIMIT = 0.3  # CPU seconds
_ROUNDS, _QUICK = 30, 10
_CODE = """
import time
start = time.process_time()
import torch
between = time.process_time()
import steer
print(between - start, time.process_time() - between)
"""


@bench("import")
def importing(options: Options) -> Iterator[Line]:
    """CPU seconds of `import steer` beyond those of `import torch`."""
    _seconds()  # Python writes what it compiles
    found = [_seconds() for _ in range(_QUICK if options.quick else _ROUNDS)]
    base, beyond = (tuple(column) for column in zip(*found, strict=True))
    name = "import steer beyond import torch"
    limit = Limit(LIMIT)
    yield Line("import.steer", name, estimate(beyond), len(beyond), limit, "s", "", beyond)
    yield Line("import.torch", "import torch", estimate(base), len(base), None, "s", "", base)


def _seconds() -> tuple[float, float]:
    """Return the CPU seconds of importing torch, and then of importing steer."""
    run = subprocess.run(
        [sys.executable, "-c", _CODE],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    torch, steer = map(float, run.stdout.split())
    return torch, steer
