"""The document of a request, and the positions that a scope steers."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steer.algebra import Scope
from steer.errors import CapabilityError, CompositionError
from steer.serving._setting import interval, read_setting

_DOMAINS = st.text(min_size=1, max_size=8)
_NUMBERS = st.floats(-8, 8, allow_nan=False)


@given(st.dictionaries(_DOMAINS, _NUMBERS, max_size=4))
def test_a_row_is_read_as_it_is_and_as_text(row: dict[str, float]) -> None:
    wanted = {domain: c for domain, c in row.items() if c}
    assert read_setting(row, 8).coefficients == wanted
    assert read_setting({"coefficients": row}, 8) == read_setting(row, 8)
    assert read_setting(json.dumps(row), 8) == read_setting(row, 8)


def test_a_domain_may_have_the_name_of_a_key() -> None:
    assert read_setting({"coefficients": 0.5}, 8).coefficients == {"coefficients": 0.5}
    assert read_setting({"scope": 0.5}, 8).coefficients == {"scope": 0.5}


def test_a_scope_is_read_from_its_text() -> None:
    found = read_setting({"coefficients": {"a": 1}, "scope": "all[3:7]"}, 8)
    assert found.scope == Scope("all", 3, 7)


def test_a_text_that_is_scored_says_where_its_prompt_ends() -> None:
    assert read_setting({"coefficients": {"a": 1}, "prompt_length": 7}, 8).prompt_length == 7
    assert read_setting({"a": 1}, 8).prompt_length is None


@pytest.mark.parametrize(
    "document",
    [
        None,
        3,
        [],
        "",
        "[1]",
        '{"a": 1, "a": 2}',
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": 8.1},
        {"a": True},
        {"a": "1"},
        {"a": None},
        {"a": [1]},
        {1: 1.0},
        {"coefficients": {"a": 1}, "scope": 3},
        {"coefficients": {"a": 1}, "scope": "x"},
        {"coefficients": {"a": 1}, "gate": "a"},
        json.dumps({f"d{k}": 0 for k in range(10_000)}),
        {"coefficients": {"a": 1}, "prompt_length": 0},
        {"coefficients": {"a": 1}, "prompt_length": True},
        {"coefficients": {"a": 1}, "prompt_length": 2.5},
    ],
)
def test_what_is_no_setting_is_refused(document: object) -> None:
    with pytest.raises(CompositionError):
        read_setting(document, 8)


def test_a_marker_is_refused_by_name() -> None:
    with pytest.raises(CapabilityError, match="marker"):
        read_setting({"coefficients": {"a": 1}, "scope": "after:</think>"}, 8)


@given(
    st.sampled_from(["all", "prompt", "response", "last_prompt"]),
    st.integers(0, 12),
    st.one_of(st.none(), st.integers(13, 20)),
    st.integers(1, 16),
)
def test_an_interval_is_the_mask_of_its_scope(
    part: str, start: int, stop: int | None, prompt: int
) -> None:
    scope = Scope(part, start, stop)
    first, end = interval(scope, prompt)
    positions = torch.arange(24)[None]
    mask = scope.mask(positions, torch.tensor([prompt]))
    assert mask[0].tolist() == [first <= p < end for p in range(24)]
