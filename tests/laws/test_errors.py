"""Every error says four things, also on the other side of a process boundary."""

import pickle

import pytest

from steer import errors

KINDS = sorted(
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.SteerError)
)


@pytest.mark.parametrize("name", KINDS)
def test_an_error_says_what_was_found_expected_and_to_do(name):
    kind = getattr(errors, name)
    error = kind("it is wrong", found=[1, 2], expected="three", do="add one")
    assert isinstance(error, errors.SteerError)
    assert str(error) == ("it is wrong\n  found:    [1, 2]\n  expected: three\n  to do:    add one")
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is kind
    assert str(twin) == str(error)
