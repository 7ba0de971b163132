"""The nnsight engine, tested in a process of its own: the core of the conformance suite and more.

Importing nnsight gives every Python object a `.save` and replaces `Tensor.backward` for good, which
would reach every later test of this process.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ("zero", "capture", "nesting", "rows", "cache", "fit", "traps", "state")
FAMILIES = ("llama", "gpt2")  # of the tests that take all; the others run when asked for


def pytest_in_a_process_of_its_own(*arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        env=os.environ | {"STEER_TEST_ENGINE": "nnsight", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


def passed(output: str) -> int:
    return int(re.findall(r"(\d+) passed", output)[-1])


def test_traces_and_the_core_of_the_conformance_suite() -> None:
    """Everything else: STEER_TEST_ENGINE=nnsight pytest tests/conformance/test_{zero,…}.py."""
    files = [f"tests/conformance/test_{name}.py" for name in CORE]
    chosen = " or ".join(FAMILIES)
    left_out = "any_split or in_bfloat16 or bf16 or beams_take or every_scope_and_operator"
    keyword = f"not ({left_out}) and (not every_family or {chosen})"
    found = pytest_in_a_process_of_its_own(
        "tests/nnsight/traces.py",
        "tests/nnsight/page.py",
        *files,
        "tests/conformance/test_weights.py::test_no_engine_takes_weights_without_declaring_it",
        "tests/conformance/test_markers.py::test_no_engine_takes_a_marker_without_declaring_it",
        "-k",
        keyword,
    )
    assert passed(found) >= 100


def test_nnsight_did_not_come_into_this_process() -> None:
    assert "nnsight" not in sys.modules
    assert not hasattr(3, "save")
