"""Another function of the same name does not go on with the file of the first."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import steer
from steer.errors import SelectionError
from tests.measure.setting import model, pairs

HELPER = "def helper(x):\n    return {factor} * x\n"
FUNCTION = "def measure(lm, part):\n    return {{'x': {value}}}\n"
LENGTH = "float(len(part))"
CASES: dict[str, tuple[str, str]] = {  # program before, program after
    "the code": (FUNCTION.format(value=LENGTH), FUNCTION.format(value="-1.0")),
    "a number": (FUNCTION.format(value="1.0"), FUNCTION.format(value="2.0")),
    "a default": (
        "def measure(lm, part, by=1.0):\n    return {'x': by}\n",
        "def measure(lm, part, by=2.0):\n    return {'x': by}\n",
    ),
    "a keyword's default": (
        "def measure(lm, part, *, by=1.0):\n    return {'x': by}\n",
        "def measure(lm, part, *, by=2.0):\n    return {'x': by}\n",
    ),
    "a function that is called": tuple(  # type: ignore[dict-item]
        HELPER.format(factor=f) + FUNCTION.format(value="helper(1.0)") for f in (1, 2)
    ),
    "a function within": tuple(  # type: ignore[dict-item]
        f"def measure(lm, part):\n    def f(x):\n        return {f} * x\n"
        "    return {'x': f(1.0)}\n"
        for f in (1, 2)
    ),
    "a constant": tuple(  # type: ignore[dict-item]
        f"BY = {by}\n" + FUNCTION.format(value="BY") for by in (1, 2)
    ),
    "a list": tuple(  # type: ignore[dict-item]
        f"BY = [{by}]\n" + FUNCTION.format(value="BY[0]") for by in (1, 2)
    ),
    "a tensor": tuple(  # type: ignore[dict-item]
        f"import torch\nBY = torch.tensor([{by}.0])\n" + FUNCTION.format(value="BY.item()")
        for by in (1, 2)
    ),
    "a partial that is called": tuple(  # type: ignore[dict-item]
        f"from functools import partial\nBY = partial(max, {by})\n" + FUNCTION.format(value="BY(0)")
        for by in (1, 2)
    ),
    "a lambda that is called": tuple(  # type: ignore[dict-item]
        f"BY = lambda: {by}\n" + FUNCTION.format(value="BY()") for by in (1, 2)
    ),
    "a decorated function": tuple(  # type: ignore[dict-item]
        "import torch\n@torch.no_grad()\n" + FUNCTION.format(value=by) for by in (1, 2)
    ),
    "a cached function that is called": tuple(  # type: ignore[dict-item]
        "import functools\n@functools.cache\n"
        + HELPER.format(factor=f)
        + FUNCTION.format(value="helper(1.0)")
        for f in (1, 2)
    ),
    "a closure": tuple(  # type: ignore[dict-item]
        "import functools\ndef scaled(by):\n    def wrap(f):\n        @functools.wraps(f)\n"
        "        def g(lm, part):\n            return {'x': by * f(lm, part)['x']}\n"
        f"        return g\n    return wrap\n@scaled({by})\n" + FUNCTION.format(value=1.0)
        for by in (1, 2)
    ),
    "two decorators": tuple(  # type: ignore[dict-item]
        "import torch\n@torch.no_grad()\n@torch.inference_mode()\n" + FUNCTION.format(value=by)
        for by in (1, 2)
    ),
    "an object that is called": tuple(  # type: ignore[dict-item]
        "class M:\n    def __init__(self, by):\n        self.by = by\n"
        f"    def __call__(self, lm, part):\n        return {{'x': self.by}}\nmeasure = M({by})\n"
        for by in (1, 2)
    ),
    "the class of an object": tuple(  # type: ignore[dict-item]
        f"class M:\n    def __call__(self, lm, part):\n        return {{'x': {by}}}\n"
        "measure = M()\n"
        for by in (1, 2)
    ),
    "a base of the class": tuple(  # type: ignore[dict-item]
        f"class B:\n    def by(self):\n        return {by}\nclass M(B):\n"
        "    def __call__(self, lm, part):\n        return {'x': self.by()}\nmeasure = M()\n"
        for by in (1, 2)
    ),
    "a method": tuple(  # type: ignore[dict-item]
        "class M:\n    __slots__ = ('by',)\n    def __init__(self, by):\n        self.by = by\n"
        "    def of(self, lm, part):\n        return {'x': self.by}\n"
        f"measure = M({by}).of\n"
        for by in (1, 2)
    ),
    "a judge": tuple(  # type: ignore[dict-item]
        "from steer.measure import EndpointJudge\n"
        f"JUDGE = EndpointJudge('m', 'Is {{answer}} {by}?', ['yes', 'no'])\n"
        + FUNCTION.format(value="float(len(JUDGE.question))")
        for by in (1, 2)
    ),
    "a trained model": tuple(  # type: ignore[dict-item]
        f"import torch\nNET = torch.nn.Linear(1, 1)\ntorch.nn.init.constant_(NET.weight, {by})\n"
        "torch.nn.init.zeros_(NET.bias)\n" + FUNCTION.format(value="NET.weight.item()")
        for by in (1, 2)
    ),
}


def defined(program: str) -> Any:
    """The function of a program, as a module of the user defines it."""
    module = ModuleType("scores")
    exec(compile(program, "scores.py", "exec"), module.__dict__)
    return module.measure


def swept(measure: Any, path: Path, grid: Any = (0.0, 0.5)) -> steer.Sweep:
    vector = steer.Vector.of({1: torch.ones(model().architecture.d_model)})
    return steer.sweep(
        model(), vector, pairs(), list(grid), measure=measure, save=path, progress=False
    )


@pytest.mark.parametrize("case", CASES)
def test_what_a_measure_computes_is_part_of_the_request(case: str, tmp_path: Path) -> None:
    before, after = CASES[case]
    path = tmp_path / "s.jsonl"
    first = swept(defined(before), path)
    content = path.read_bytes()
    assert swept(defined("# a comment\n\n" + before), path).rows == first.rows
    with pytest.raises(SelectionError, match=r"another sweep[^|]*changed in") as caught:
        swept(defined(after), path)
    assert "python" not in str(caught.value.found)
    assert path.read_bytes() == content


def test_the_message_says_what_changed(tmp_path: Path) -> None:
    before, after = CASES["a function that is called"]
    swept(defined(before), tmp_path / "s.jsonl")
    with pytest.raises(SelectionError, match=r"changed in .*measure: scores: helper"):
        swept(defined(after), tmp_path / "s.jsonl")


def test_what_is_not_named_does_not_count(tmp_path: Path) -> None:
    program = FUNCTION.format(value=LENGTH)
    first = swept(defined(program + "OTHER = 1\n"), tmp_path / "s.jsonl")
    again = swept(defined(program + "OTHER = 2\n"), tmp_path / "s.jsonl")
    assert again.way == "resumed"
    assert again.rows == first.rows


def test_what_cannot_be_copied_counts_by_its_class(tmp_path: Path) -> None:
    program = "import threading\nLOCK = threading.Lock()\ndef measure(lm, part):\n"
    program += "    with LOCK:\n        return {'x': 1.0}\n"
    swept(defined(program), tmp_path / "s.jsonl")
    assert swept(defined(program), tmp_path / "s.jsonl").way == "resumed"


def test_a_state_of_its_own_choice_leaves_counters_out(tmp_path: Path) -> None:
    """`__getstate__` is what an object is copied with."""
    program = (
        "class M:\n    def __init__(self):\n        self.calls = 0\n"
        "    def __getstate__(self):\n        return {}\n"
        "    def __call__(self, lm, part):\n        self.calls += 1\n        return {'x': 1.0}\n"
        "measure = M()\n"
    )
    measure = defined(program)
    swept(measure, tmp_path / "s.jsonl")
    assert measure.calls > 0
    assert swept(measure, tmp_path / "s.jsonl").way == "resumed"


PROGRAM = """
import functools, sys
from steer.measure._request import parts_of

WORDS = {"sorry", "cannot", "help", "unable"}

@functools.cache
def helper(text):
    return text in {"a", "b", "c", "d"} or text in WORDS

class Scored:
    def __init__(self):
        self.words = frozenset(WORDS)
        self.helper = helper
    def __call__(self, lm, part):
        return {"x": float(helper("a"))}

measure = Scored()
print(parts_of(measure))
"""


def test_the_parts_are_the_same_in_every_process() -> None:
    """Whatever the seed of hashes, on which the order of sets depends."""
    found = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(steer.__file__).parents[1])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(found) == 1
    assert "helper" in next(iter(found))
