"""The kernels that tests run with; `python -m tests.kernels` tries those of other machines.

No test, threshold or tie may depend on the last bits that one machine's kernels give. The settings
are those that torch, oneDNN and MKL read from the environment on x86-64; elsewhere they change
nothing. `reordered` sums every product in another order (`tests/reordered.py`).
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType

NUMERICAL = (
    *("laws", "network", "engine", "conformance", "extract", "selection", "measure", "view"),
    *("alignment", "merge", "demo", "demo_model", "store", "show", "report", "console"),
    *("nnsight", "oracle", "model", "models", "attacks", "real"),
)
KERNELS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "none": {},
        "avx2": {
            "ATEN_CPU_CAPABILITY": "avx2",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        },
        "default": {
            "ATEN_CPU_CAPABILITY": "default",
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        },
        "compatible": {"MKL_CBWR": "COMPATIBLE"},
        "reordered": {"STEER_TEST_KERNELS": "reordered"},
    }
)
THREADS = (1, 2)


def apply() -> None:
    """Set the kernels and the number of threads, by default one, that the environment names."""
    import torch

    torch.set_num_threads(int(os.environ.get("STEER_TEST_THREADS", "1")))
    if os.environ.get("STEER_TEST_KERNELS") == "reordered":
        import tests.reordered  # noqa: F401


def settings() -> Iterator[tuple[str, dict[str, str]]]:
    """Names of the settings, and the environment of each."""
    for name, variables in KERNELS.items():
        for threads in THREADS:
            own = {"STEER_TEST_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
            yield f"{name}, {threads} thread(s)", {**os.environ, **variables, **own}


def main(arguments: list[str]) -> int:
    """Run the tests that are named, or all numerical ones, under every setting."""
    tests = arguments or [f"tests/{folder}" for folder in NUMERICAL]
    failed = []
    for name, environment in settings():
        sys.stderr.write(f"\n== {name}\n")
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", *tests]
        if subprocess.run(command, env=environment, check=False).returncode:
            failed.append(name)
    sys.stderr.write(f"\nfailed under: {'; '.join(failed) or 'none of the settings'}\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
