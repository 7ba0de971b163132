"""`import steer` loads the standard library, and a room torch at most."""

import subprocess
import sys

import pytest

from tests.repository.blocks import ROOT

HEAVY = (
    "transformers",
    "huggingface_hub",
    "datasets",
    "nnsight",
    "pydantic",
    "matplotlib",
    "pandas",
    "pyarrow",
    "IPython",
    "ipywidgets",
    "peft",
    "trl",
    "openai",
    "lm_eval",
)


@pytest.mark.parametrize("module", ["steer", "steer.algebra", "steer.cli", "steer.demo.language"])
def test_import_loads_nothing_heavy(module: str) -> None:
    code = (
        f"import sys, {module}\n"
        f"print(','.join(sorted(set({HEAVY!r}) & set(sys.modules))))\n"
        "print('torch' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    loaded, torch = run.stdout.splitlines()
    assert loaded == ""
    assert torch == str(module in ("steer.algebra", "steer.cli"))


def test_what_needs_a_model_is_loaded_when_it_is_named() -> None:
    later = ("alignment", "evaluate", "model", "recording", "search", "measure", "tune")
    there = f"[n for n in {later!r} if f'steer.{{n}}' in sys.modules]"
    code = f"import sys, steer; print(*{there})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).split() == []
