"""Programs are run under limits, and only those that reach their end have passed."""

import os
import time
from pathlib import Path

import pytest

from steer.harness import (
    HarnessError,
    SandboxLimits,
    Verdict,
    code_execution,
    isolation,
    run_programs,
)

AMPLE = SandboxLimits(seconds=60, memory=256, file_size=1)  # of time: a busy machine starts slowly


def run(source: str, limits: SandboxLimits = AMPLE) -> Verdict:
    with code_execution(limits):
        (verdict,) = run_programs([source])
    return verdict


def test_without_permission_nothing_runs() -> None:
    with pytest.raises(HarnessError, match="allow_code_execution"):
        run_programs(["pass"])
    with code_execution(AMPLE):
        pass
    with pytest.raises(HarnessError, match="no permission"):
        run_programs(["pass"])


def test_verdicts_keep_the_order() -> None:
    with code_execution(SandboxLimits(seconds=60, at_once=3)):
        found = run_programs(["assert True", "assert 1 == 2, 'no'", "def f(:"])
    assert [v.outcome for v in found] == ["passed", "failed", "failed"]
    assert [v.passed for v in found] == [True, False, False]
    assert found[1].error == "AssertionError: no"
    assert found[2].error.startswith("SyntaxError")


@pytest.mark.parametrize(
    ("source", "outcome"),
    [
        ("import sys; sys.exit(0)", "exited"),
        ("raise SystemExit", "exited"),
        ("import unittest; unittest.main(argv=['x'])", "exited"),
        ("import os; os._exit(0)", "killed"),
        ("import os; os.abort()", "killed"),
        ("exit = quit = None\nraise KeyboardInterrupt", "failed"),
        ("print('passed'); print(['passed', '']); assert False", "failed"),
        ("import ctypes; ctypes.string_at(0)", "killed"),
        ("def f(): return f()\nf()", "failed"),
        ("class E(Exception):\n  def __str__(self): raise ValueError\nraise E", "failed"),
    ],
)
def test_ending_early_is_not_passing(source: str, outcome: str) -> None:
    assert run(source).outcome == outcome


def test_a_forged_verdict_is_not_believed() -> None:
    forged = """
import os
for d in range(3, 20):
    try:
        os.write(d, b'["guess", "passed", ""]')
    except OSError:
        pass
os._exit(0)
"""
    assert run(forged).outcome == "killed"


@pytest.mark.parametrize(
    "source",
    ["while True: pass", "import time; time.sleep(60)", "while True: print('x' * 1000)"],
)
def test_endless_programs_and_floods_of_output_are_stopped(source: str) -> None:
    began = time.monotonic()
    assert run(source, SandboxLimits(seconds=0.5)).outcome == "timeout"
    assert time.monotonic() - began < 30


def test_memory_is_bounded() -> None:
    assert run("x = bytearray(10**9)").error.startswith("MemoryError")
    grown = run("x = []\nwhile True: x.append(bytearray(10**7))", SandboxLimits(60, memory=256))
    assert grown.error.startswith("MemoryError")


@pytest.mark.parametrize(
    "source",
    [
        "import os\nif os.fork(): raise SystemError",
        "import subprocess; subprocess.run(['true'])",
        "import threading; t = threading.Thread(target=print); t.start()",
        "import os\nwhile True: os.fork()",
    ],
)
def test_further_processes_and_threads_are_refused(source: str) -> None:
    verdict = run(source)
    assert verdict.outcome == "failed"
    assert "Error" in verdict.error
    assert "SystemError" not in verdict.error


def test_files_go_into_a_folder_that_is_deleted_and_are_bounded(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    source = f"""
import os
assert os.listdir('.') == []
open('a', 'w').write('x')
open({str(seen)!r}, 'w').write(os.getcwd())
"""
    before = sorted(os.listdir("."))
    assert run(source).passed
    assert not Path(seen.read_text()).exists()
    assert sorted(os.listdir(".")) == before
    assert "File too large" in run("open('a', 'w').write('x' * 10**7)").error


def test_the_environment_is_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "word")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    source = """
import os, sys
assert not {'SECRET', 'PYTHONPATH'} & set(os.environ), dict(os.environ)
assert sys.flags.isolated and '/nowhere' not in sys.path
try:
    assert False
except AssertionError:
    os.environ['asserts'] = 'on'
if 'asserts' not in os.environ:
    raise ValueError('assertions are off')
"""
    assert run(source) == Verdict("passed")


def test_there_is_no_network_where_namespaces_are_allowed() -> None:
    if isolation() != "namespaces and limits":
        pytest.skip("this kernel does not let the user make namespaces")
    source = "import socket; socket.create_connection(('127.0.0.1', 9), timeout=1)"
    assert "unreachable" in run(source).error


@pytest.mark.parametrize("name", ["seconds", "memory", "file_size", "at_once"])
def test_a_limit_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(HarnessError, match=f"{name}=0"):
        SandboxLimits(**{name: 0})


def test_limits_hold_without_namespaces_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steer.harness._sandbox.isolation", lambda: "limits")
    assert run("assert True").passed
    assert run("import os\nwhile True: os.fork()").outcome == "failed"
    assert run("while True: pass", SandboxLimits(seconds=0.5)).outcome == "timeout"
    assert run("import os; os.kill(os.getpid(), 9)").outcome == "killed"


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 0.0])
def test_limits_are_finite(seconds: float) -> None:
    with pytest.raises(HarnessError, match="finite limits above 0"):
        SandboxLimits(seconds=seconds)
