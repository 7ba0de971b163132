"""A model's programs run in containers or not at all, and only those that reach their end pass.

The programs below are the tests' own: those may run in Inspect's `local` sandbox, which is none.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import steer
from steer.errors import CapabilityError, HarnessError, MissingExtraError
from steer.harness import _programs as sandbox
from steer.harness import run_harness
from tests.harness import files
from tests.harness.inspecting import INSPECTS_OWN, inspecting
from tests.tiny import tiny_model, tiny_tokenizer

pytestmark = INSPECTS_OWN


def run(source: str) -> str:
    """Return the outcome of a program."""
    (found,) = sandbox.run_programs([source])
    return found["outcome"]


@pytest.fixture
def no_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    pytest.importorskip("inspect_ai", reason="the extra 'inspect' is not installed")
    monkeypatch.setattr(sandbox, "SANDBOX", "local")
    with inspecting(tmp_path, monkeypatch):
        yield


def harness(data: Path, task: str, *, allowed: bool) -> None:
    lm = steer.Model(tiny_model("llama"), tiny_tokenizer())
    run_harness(lm, None, task, data=data, progress=False, allow_code_execution=allowed)


def test_programs_are_run_only_if_that_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"humaneval[\s\S]*allow_code_execution"):
        harness(files.write(tmp_path), "humaneval", allowed=False)


def test_without_inspect_programs_are_refused_by_the_name_of_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    with pytest.raises(MissingExtraError, match=r"mbpp[\s\S]*residual-steer\[inspect\]"):
        harness(files.write(tmp_path), "mbpp", allowed=True)


def test_without_a_container_engine_programs_are_refused_and_it_is_said_how_to_enable_them(
    tmp_path: Path, no_docker: None
) -> None:
    with pytest.raises(CapabilityError, match=r"humaneval_chat[\s\S]*docs.docker.com"):
        harness(files.write(tmp_path), "humaneval_chat", allowed=True)


@pytest.mark.parametrize("allowed", [False, True])
def test_tasks_that_run_programs_without_a_sandbox_are_refused(
    tmp_path: Path, allowed: bool
) -> None:
    (tmp_path / "own.py").write_text(
        "from datasets import Dataset\n"
        "def load(**_): return {'test': Dataset.from_list([{'text': 'a'}])}\n"
    )
    task = tmp_path / "own.yaml"
    task.write_text(
        "task: own\ncustom_dataset: !function own.load\ntest_split: test\nunsafe_code: true\n"
        "output_type: generate_until\ndoc_to_text: text\ndoc_to_target: text\n"
        "metric_list:\n- {metric: exact_match, aggregation: mean, higher_is_better: true}\n"
    )
    with pytest.raises(CapabilityError, match=r"without a sandbox[\s\S]*own"):
        harness(tmp_path, str(task), allowed=allowed)


def test_outcomes_keep_the_order_of_the_programs(
    local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "_SECONDS", 5)
    programs = {
        "assert True": "passed",
        "assert 1 == 2, 'no'": "failed",
        "def f(:": "failed",
        "import sys; sys.exit(0)": "exited",
        "import sys; sys.exit(1)": "failed",
        "import os; os._exit(0)": "exited",
        "import os; os.abort()": "failed",
        "print = None; input = None": "passed",
        "print('passed'); assert False": "failed",
        "while True: pass": "timeout",
        "half = '\ud83d'": "failed",
        "if __name__ == '__main__': raise KeyboardInterrupt": "failed",
        f"class {'E' * 9000}(Exception): pass\nraise {'E' * 9000}": "failed",
    }
    found = sandbox.run_programs(list(programs))
    assert [one["outcome"] for one in found] == list(programs.values())
    assert found[1]["error"] == "AssertionError: no"
    assert found[2]["error"].startswith("SyntaxError")
    assert max(len(one["error"]) for one in found) <= 300


def test_a_sandbox_that_fails_is_reported(local: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(HarnessError, match="could not be run"):
        run("pass")


def test_the_container_is_declared_without_network_and_privileges() -> None:
    pytest.importorskip("inspect_ai", reason="the extra 'inspect' is not installed")
    from inspect_ai.util import parse_compose_yaml

    kind, path = sandbox.SANDBOX
    container = parse_compose_yaml(path).services["default"]
    assert (kind, container.network_mode, container.cap_drop) == ("docker", "none", ["ALL"])
    assert (container.mem_limit, container.cpus, container.pids_limit) == ("1g", 1.0, 64)
    assert container.volumes is None


def test_containers_have_no_network_and_keep_programs_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("inspect_ai", reason="the extra 'inspect' is not installed")
    try:
        sandbox.check_sandbox(["a test"])
        subprocess.run(
            ["docker", "image", "inspect", "python:3.12-slim"], check=True, capture_output=True
        )
    except (CapabilityError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no container engine with the image: {error}")
    online = "import socket; socket.create_connection(('1.1.1.1', 80), timeout=2)"
    with inspecting(tmp_path, monkeypatch):
        found = sandbox.run_programs(["open('/tmp/a', 'x')", "open('/tmp/a', 'x')", online])
    assert [one["outcome"] for one in found] == ["passed", "passed", "failed"]
