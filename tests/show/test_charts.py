"""Charts as SVG: what is drawn lies where its number says."""

import itertools
import math
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer.show import Bars, Card, Chart, Curves, Matrix, Series, Shown, card_html
from steer.show._look import PALETTE, diverging, hexadecimal
from steer.show._scale import Scale, around
from tests.show.forms import html_of, terminal

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 6))
ANY = st.floats() | st.floats(-3, 3)
NAN = math.nan


class Charts(Shown):
    """A value that shows charts."""

    def __init__(self, *charts: Chart) -> None:
        self.charts = charts

    def _card(self) -> Card:
        return Card("charts", (), self.charts)


def drawn(chart: Chart, tag: str) -> list[ET.Element]:
    """Return the elements of one kind in the picture of a chart."""
    html = html_of(Charts(chart)).replace(" xmlns:ns0=", " data-was=").replace("ns0:", "")
    return ET.fromstring(html).findall(f".//figure/svg/{tag}")


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
def test_charts_can_be_made_of_anything(curves: dict[str, list[tuple[float, ...]]]) -> None:
    """No number makes a chart fail, and none that is not finite is drawn."""
    sane: Any = {
        name: tuple(tuple(v if abs(v) < 1e9 else NAN for v in p) for p in points)
        for name, points in curves.items()
    }
    rooted = {n: Series(tuple((abs(p[0]), p[1]) for p in ps), False) for n, ps in sane.items()}
    values = tuple(p[1] for points in sane.values() for p in points)
    made = Charts(
        Curves("y", "x", sane, marked=0.0, level=0.5),
        Curves("y", "x", rooted, marked=0.5, marked_name="limit", root=True),
        Bars("bars", tuple("<" for _ in values), values, limits=(-1.0, 1.0), split=(1, "<")),
        Matrix("cells", ("<",), tuple("<" for _ in values), (values,), (-1.0, 1.0)),
    )
    assert not re.search(r"[\"'=, ](nan|inf)", re.sub("<title>[^<]*</title>", "", html_of(made)))
    assert terminal(made)


def places(chart: Chart, tag: str) -> list[tuple[float, float]]:
    return [(float(e.get("cx", 0)), float(e.get("cy", 0))) for e in drawn(chart, tag)]


def test_a_point_lies_where_its_value_says() -> None:
    (x0, y0), (x1, y1) = places(Curves("y", "x", {"a": ((0.0, 0.0), (1.0, 1.0))}), "circle")
    assert x0 < x1
    assert y0 > y1, "up is more"


def test_the_marked_place_parts_what_lies_before_it_from_what_lies_behind() -> None:
    points = Series(((0.1, 0.2), (0.9, 0.8)), joined=False)
    chart = Curves("y", "x", {"tried": points}, marked=0.5, marked_name="limit 0.5", root=True)
    (inside, _), (outside, _) = places(chart, "circle")
    (limit,) = (e for e in drawn(chart, "line") if e.get("stroke-dasharray"))
    assert inside < float(limit.get("x1", 0)) < outside
    assert "limit 0.5" in [e.text for e in drawn(chart, "text")]


def test_a_band_reaches_from_the_lower_to_the_upper_ends() -> None:
    ends = ((0.0, 0.5, 0.4, 0.8), (1.0, 0.5, 0.4, 0.8))
    marks = {end: ((0.0, end), (1.0, end)) for end in (0.4, 0.8)}
    chart = Curves("y", "x", {"a": ends, "b": marks[0.4], "c": marks[0.8]}, limits=(0.0, 1.0))
    band = next(e for e in drawn(chart, "polygon") if e.get("fill-opacity"))
    corners = [float(point.split(",")[1]) for point in band.get("points", "").split()]
    lines = [e.get("points", "").split() for e in drawn(chart, "polyline")]
    low, high = (float(line[0].split(",")[1]) for line in lines[1:])
    assert corners == [low, low, high, high]


def test_limits_are_the_ends_of_the_axis_and_the_marked_point_is_hollow() -> None:
    chart = Curves("y", "x", {"a": ((0.0, 0.5), (1.0, 0.6))}, marked=1.0, limits=(0.0, 1.0))
    ticks = [e.text for e in drawn(chart, "text") if e.get("text-anchor") == "end"]
    assert (ticks[0], ticks[-1]) == ("0", "1")
    assert [e.get("fill") for e in drawn(chart, "circle")] == [PALETTE[0], "none"]


def test_a_value_that_is_not_finite_is_a_gap_with_a_cross() -> None:
    points = tuple((float(k), 1.0 if k != 2 else NAN) for k in range(5))
    chart = Curves("y", "x", {"a": points})
    assert len(drawn(chart, "polyline")) == 2
    assert [e.text for e in drawn(chart, "text")].count("×") == 1


def test_a_cell_stands_in_its_row_and_has_the_colour_of_its_sign() -> None:
    values = ((1.0, 0.0), (0.0, -1.0))
    chart = Matrix("what", ("a", "b"), ("c", "d"), values, (-1.0, 1.0))
    cells = drawn(chart, "rect")
    assert [c.get("fill") for c in cells] == [
        hexadecimal(diverging(v)) for row in values for v in row
    ]
    x, y = ([float(c.get(name, 0)) for c in (cells[0], cells[-1])] for name in "xy")
    assert x[0] < x[1]
    assert y[0] < y[1], "rows go down"
    turned = Matrix("what", ("a", "b"), ("c", "d"), values, (-1.0, 1.0), upwards=True)
    assert drawn(turned, "rect")[0].get("fill") == hexadecimal(diverging(0.0))


def test_bars_beyond_the_limits_are_cut_off_and_marked() -> None:
    chart = Bars("b", ("a", "b", "c"), (1.0, 50.0, -50.0), limits=(-2.0, 2.0), split=(1, "answer"))
    heights = [float(bar.get("height", 0)) for bar in drawn(chart, "rect")]
    assert heights[1] == pytest.approx(heights[2], abs=0.11)
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.11)
    assert {"▲", "▼", "answer →"} <= {e.text for e in drawn(chart, "text")}


def test_a_chart_of_one_point_is_left_to_the_table() -> None:
    assert "<svg" not in card_html(Card("", (), (Curves("y", "x", {"a": ((0.0, 1.0),)}),)))
