"""Names of sites and scopes are read back as they are printed."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer.algebra import Residual, Scope, Weight, parse_scope, parse_site
from steer.algebra._scope import ALL
from steer.algebra._site import EMBED, site_order
from steer.errors import AlgebraError, CompositionError
from tests.registered import SCOPES

sites = st.one_of(
    st.integers(-1, 999_999).map(Residual), st.text(min_size=1, max_size=20).map(Weight)
)
ranges = st.tuples(st.integers(0, 10**17), st.none() | st.integers(1, 10**17))
markers = st.text(min_size=1, max_size=100).filter(
    lambda text: text.strip() and text.isprintable() and not re.search(r"\[\d*:\d*\]$", text)
)
marked = st.builds(str.__add__, st.sampled_from(["after:", "before:"]), markers)
scopes = st.builds(
    lambda part, span: Scope(part, span[0], span[1] and span[0] + span[1]),
    st.sampled_from(SCOPES) | marked,
    ranges,
)


@given(sites)
def test_a_site_is_read_back_from_its_name(site):
    assert parse_site(str(site)) == site


@given(st.lists(sites, min_size=2, unique=True))
def test_names_are_distinct_and_residual_sites_come_first_by_layer(found):
    assert len({str(site) for site in found}) == len(found)
    ordered = sorted(found, key=site_order)
    layers = [site.layer for site in ordered if isinstance(site, Residual)]
    assert layers == sorted(layers)
    assert all(isinstance(site, Residual) for site in ordered[: len(layers)])


def test_names_of_sites():
    assert str(EMBED) == "embed"
    assert str(Residual(14)) == "resid_post.14"
    assert str(Weight("lm_head.weight")) == "weight:lm_head.weight"


NO_SITES = (
    *("14", "resid_post.", "resid_post.-1", "resid_post.01", "resid_post.1000000"),
    *("weight:", "resid_pre.1", "Embed", "resid_post.١", "", "resid_post.1 "),
)
NO_SCOPES = (
    *("", "none", "all[", "all[]", "all[3]", "all[-1:]", "all[1:2]x", "all[5:5]", "all[1:2:3]"),
    *("all[٣:]", "all[1.5:]", "[1:2]", "response[2:1]", "prompt[True:]", f"all[{'9' * 5000}:]"),
)


@pytest.mark.parametrize("text", NO_SITES)
def test_unreadable_names_of_sites(text):
    with pytest.raises(AlgebraError, match="unreadable site"):
        parse_site(text)


@pytest.mark.parametrize("layer", [-2, 1_000_000, True, 1.0, "3", None])
def test_no_such_layer(layer):
    with pytest.raises(AlgebraError, match="no such residual site"):
        Residual(layer)


@pytest.mark.parametrize("name", ["", 3])
def test_no_such_parameter(name):
    with pytest.raises(AlgebraError, match="no such weight site"):
        Weight(name)


@given(scopes)
def test_a_scope_is_read_back_from_its_name(scope):
    assert parse_scope(str(scope)) == scope
    assert parse_scope(scope) is scope


def test_names_of_scopes():
    assert str(ALL) == "all"
    assert str(Scope("response", 3)) == "response[3:]"
    assert str(Scope("all", 0, 5)) == "all[0:5]"
    assert parse_scope("prompt[2:7]") == Scope("prompt", 2, 7)
    assert parse_scope("all[:3]") == Scope("all", 0, 3)
    assert parse_scope("after:</think>").marker == "</think>"
    assert parse_scope("before:[/THINK][5:]") == Scope("before:[/THINK]", 5)
    assert parse_scope("after:[/THINK]").marker == "[/THINK]"
    assert Scope("response").marker is None


@pytest.mark.parametrize("text", NO_SCOPES)
def test_unreadable_names_of_scopes(text):
    with pytest.raises(CompositionError):
        parse_scope(text)


@pytest.mark.parametrize(
    ("start", "stop"), [(-1, None), (3, 3), (3, 2), (0, 0), (1.5, None), (True, None), (0, 2.0)]
)
def test_ranges_that_mean_no_token_are_refused(start, stop):
    with pytest.raises(CompositionError, match="range"):
        Scope("all", start, stop)


@pytest.mark.parametrize(
    "marker", ["", "  ", "\n", "a\nb", "\ud800", "x" * 101, "a[1:2]", "[:]", "[3:]"]
)
def test_what_is_no_marker_is_refused(marker):
    for side in ("after:", "before:"):
        with pytest.raises(CompositionError, match="no marker"):
            Scope(side + marker)


@pytest.mark.parametrize("part", ["every", "", None, "after", "until:</think>"])
def test_unknown_parts_are_refused(part):
    with pytest.raises(CompositionError, match="unknown scope"):
        Scope(part)
