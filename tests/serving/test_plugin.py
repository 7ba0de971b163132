"""The entry point costs a program that is not steered nothing."""

import subprocess
import sys
from importlib.metadata import entry_points

from tests.repository.blocks import ROOT


def test_vllm_finds_the_entry_point() -> None:
    (found,) = [e for e in entry_points(group="vllm.general_plugins") if e.name == "steer"]
    assert found.value == "steer.serving._plugin:register"
    assert callable(found.load())


def test_its_module_loads_the_standard_library_only() -> None:
    code = (
        "import sys; before = set(sys.modules); import steer.serving._plugin\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new - {'steer'} - set(sys.stdlib_module_names)))"
    )
    found = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT)
    assert found.split() == []
