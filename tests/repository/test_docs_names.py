"""What the documentation calls `steer.…` is there after `import steer` alone."""

import re
import subprocess
import sys

from tests.repository.blocks import ROOT

_NAME = re.compile(r"\bsteer(?:\.[A-Za-z]\w*)+")
_GGUF = ("operation", "hook_point", "scope", "domain", "coefficient", "method")
_KEYS = {"steer.vector", "steer.activations", *(f"steer.{key}" for key in _GGUF)}  # in files
_CHECK = """
import importlib, itertools, os, sys
import steer

def lacks(name):
    value, path = steer, "steer"
    for part in name.split(".")[1:]:
        path = f"{path}.{part}"
        if not hasattr(value, part):
            if path.count(".") == 1:
                return True
            try:
                value = importlib.import_module(path)  # below the top level, as it is written
            except ImportError:
                return True
        else:
            value = getattr(value, part)
    return False

names = sorted(sys.stdin.read().split())
for _, group in itertools.groupby(names, lambda name: name.split(".")[1]):
    if child := os.fork():  # what one name loads must not be there for the next
        os.waitpid(child, 0)
        continue
    for name in group:
        if lacks(name):
            print(name, flush=True)
    os._exit(0)
"""


def test_names_of_the_documentation_are_there() -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    found = {name for page in pages for name in _NAME.findall(page.read_text())}
    names = {name for name in found if not name.endswith((".md", ".py", ".txt", ".json"))}
    names -= _KEYS
    assert {"steer.network.render", "steer.Pairs.load"} <= names
    run = subprocess.run(
        [sys.executable, "-c", _CHECK],
        input="\n".join(sorted(names)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == []
