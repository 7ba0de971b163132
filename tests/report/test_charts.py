"""Scales and marks: what is drawn lies where its number says."""

import itertools
import math
import re

from hypothesis import given
from hypothesis import strategies as st

from steer.report._charts.intervals import intervals
from steer.report._charts.lines import lines
from steer.report._charts.matrix import matrix
from steer.report._charts.scatter import scatter
from steer.report._charts.svg import Scale, around

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 6))
ANY = st.floats() | st.floats(-3, 3)
NAN = math.nan


@given(st.lists(ANY, max_size=6))
def test_limits_hold_every_finite_value(values: list[float]) -> None:
    finite = [v for v in values if math.isfinite(v) and abs(v) < 1e300]
    low, high = around(finite)
    assert low < high
    assert all(low <= v <= high for v in finite)


@given(NUMBERS, st.floats(1e-6, 1e6))
def test_ticks_are_few_even_and_inside(low: float, span: float) -> None:
    scale = Scale(low, low + span, 0.0, 100.0)
    ticks = scale.ticks
    assert 2 <= len(ticks) <= 9
    assert all(-1e-6 <= scale(t) <= 100 + 1e-6 for t in ticks)
    steps = [b - a for a, b in itertools.pairwise(ticks)]
    assert max(steps) - min(steps) <= 1e-6 * max(abs(low), span)


@given(st.floats(1e-4, 1e4))
def test_a_root_axis_begins_at_zero_and_rises(high: float) -> None:
    scale = Scale(0.0, high, 10.0, 110.0, root=True)
    assert scale(0.0) == 10.0
    assert math.isclose(scale(high / 4), 60.0)
    ticks = scale.ticks
    assert ticks[0] == 0.0
    assert 3 <= len(ticks) <= 6
    assert sorted(set(ticks)) == list(ticks)
    assert ticks[-1] <= high * (1 + 1e-9)


POINTS = st.lists(st.tuples(ANY, ANY, ANY, ANY), max_size=4)


NAMES = st.text(max_size=30).filter(lambda name: not re.search("nan|inf", name))


@given(st.dictionaries(NAMES, POINTS, max_size=8))
def test_pictures_can_be_made_of_anything(curves: dict[str, list[tuple[float, ...]]]) -> None:
    """No number makes a picture fail, and none that is not finite is drawn."""
    sane = {
        name: [(x, *rest) for x, *rest in points if math.isfinite(x) and abs(x) < 1e9]
        for name, points in curves.items()
    }
    sane = {n: [tuple(v if abs(v) < 1e9 else NAN for v in p) for p in ps] for n, ps in sane.items()}
    values = {name: points[0][1:4] for name, points in sane.items() if points}
    places = [(abs(p[0]), p[1]) for points in sane.values() for p in points]
    made = [
        lines(sane, "x", "y", unsteered=0.0),  # type: ignore[arg-type]
        intervals(values, "x"),  # type: ignore[arg-type]
        scatter(places, places, places[0] if places else None, 0.5, "x", "y"),
        matrix([[p[1] for p in places]], [["<"] * len(places)], ["<"], ["<"] * len(places), "<"),
    ]
    for picture in made:
        assert picture.startswith("<svg ")
        assert picture.endswith("</svg>")
        assert not re.search(r"[\"'=, ](nan|inf)", picture.replace("nan</text>", ""))


def test_a_point_lies_where_its_value_says() -> None:
    picture = lines({"a": [(0.0, 0.0, NAN, NAN), (1.0, 1.0, NAN, NAN)]}, "x", "y", share=True)
    found = re.findall(r"<circle cx='([\d.]+)' cy='([\d.]+)'", picture)
    (x0, y0), (x1, y1) = [(float(x), float(y)) for x, y in found]
    assert x0 < x1
    assert y0 > y1, "up is more"
    assert "band" in lines({"a": [(0.0, 0.5, 0.4, 0.6), (1.0, 0.5, 0.4, 0.6)]}, "x", "y")


def test_the_limit_parts_what_costs_more_from_what_costs_less() -> None:
    points = [(0.1, 0.2), (0.9, 0.8)]
    picture = scatter(points, points[:1], points[0], 0.5, "x", "y")
    limit = re.findall(r"<line x1='([\d.]+)'[^>]+stroke-dasharray", picture)
    inside, outside = re.findall(r"<circle cx='([\d.]+)' cy='[\d.]+' r='3.3' class='c5", picture)[
        1:
    ]
    assert float(inside) < float(limit[-1]) < float(outside)


def test_a_band_reaches_from_the_lower_to_the_upper_ends() -> None:
    ends = [(0.0, 0.5, 0.4, 0.8), (1.0, 0.5, 0.4, 0.8)]
    marks = [(x, end, NAN, NAN) for end in (0.4, 0.8) for x in (0.0, 1.0)]
    picture = lines({"a": ends, "b": marks[:2], "c": marks[2:]}, "x", "y", share=True)
    band = re.search(r"<polygon points='([^']+)' class='c0 band'", picture)
    assert band is not None
    corners = [float(point.split(",")[1]) for point in band[1].split()]
    line = r"<polyline points='[^,]+,(\S+) [^']+' class='c%d line'"
    low, high = (float(re.findall(line % k, picture)[0]) for k in (1, 2))
    assert corners == [low, low, high, high]


def test_shares_have_an_axis_from_0_to_1_and_the_unsteered_point_is_hollow() -> None:
    curve = {"a": [(0.0, 0.5, NAN, NAN), (1.0, 0.6, NAN, NAN)]}
    picture = lines(curve, "x", "y", share=True, unsteered=1.0)
    ticks = re.findall(r"text-anchor='end' font-size='12'>([^<]+)<", picture)
    assert (ticks[0], ticks[-1]) == ("0", "1")
    assert len(set(ticks)) >= 3
    low = float(re.findall(r"<line x1='58.0' y1='([\d.]+)' x2='546.0'", picture)[0])
    one = float(re.findall(r"<line x1='58.0' y1='([\d.]+)' x2='546.0'", picture)[len(ticks) - 1])
    assert (low - one) / (248.0 - 18.0) > 0.9, "nothing but 0 to 1 is on it"
    hollow = re.findall(r"<circle [^>]*class='c0 (\w*)'", picture)
    assert hollow == ["", "hollow"]


def test_a_cell_stands_in_its_row_and_has_the_colour_of_its_sign() -> None:
    picture = matrix([[1.0, 0.0], [0.0, -1.0]], [["p", "o"], ["o", "m"]], "ab", "cd", "what")
    cells = re.findall(r"<rect x='([\d.]+)' y='([\d.]+)'[^>]+fill='(#\w+)'", picture)
    (x0, y0, above), _, _, (x1, y1, below) = cells
    assert (above, below) == ("#0072b2", "#d55e00")
    assert float(x0) < float(x1)
    assert float(y0) < float(y1), "rows go down"
    named = dict(re.findall(r"y='([\d.]+)'[^>]*>([ab])<", picture))
    assert sorted(named, key=float) == [y for y, name in sorted(named.items(), key=lambda n: n[1])]
