"""The examples in the package's docstrings are true."""

import doctest
import importlib
import importlib.util
import pkgutil

import pytest

import steer

NAMES = ["steer", *(m.name for m in pkgutil.walk_packages(steer.__path__, "steer."))]
LEFT_OUT = ["steer.__main__"]
if importlib.util.find_spec("inspect_ai") is None:
    LEFT_OUT.append("steer.harness._inspect")  # Inspect imports it, through an entry point
MODULES = [name for name in NAMES if name not in LEFT_OUT]


def _examples(name: str) -> list[doctest.DocTest]:
    module = importlib.import_module(name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [test for test in finder.find(module, name) if test.examples]


def test_examples_of_all_docstrings() -> None:
    runner = doctest.DocTestRunner(verbose=False)
    found = [test for name in MODULES for test in _examples(name)]
    assert found, "no docstring holds an example"
    for test in found:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_a_wrong_example_is_noticed() -> None:
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    with pytest.raises(doctest.DocTestFailure):
        doctest.DebugRunner(verbose=False).run(test)
