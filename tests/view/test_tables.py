"""Views of tables: interference and dose-response."""

import math

import pytest
import torch

import steer
from steer import view
from steer.errors import SelectionError
from steer.measure import Steerability, off_target, sweep
from tests.measure.setting import model as tiny
from tests.measure.setting import pairs

VECTORS = {
    "medical": steer.Vector.of({1: torch.linspace(-1, 1, 32)}),
    "legal": steer.Vector.of({2: torch.linspace(1, 0, 32)}),
}


def test_the_matrix_is_what_steering_did() -> None:
    lm = tiny()
    effects = off_target(lm, VECTORS, pairs(), 2.0)
    found = view.interference(effects, measure="margin")
    assert (found.steered, found.affected) == (("medical", "legal"), ("medical", "legal"))
    for i, s in enumerate(found.steered):
        for j, a in enumerate(found.affected):
            part = pairs().of_domain(a)
            before = steer.preference(lm, part).margin
            with lm.steered(VECTORS[s], 2.0):
                after = steer.preference(lm, part).margin
            assert float(found.values[i, j]) == pytest.approx(after - before, abs=1e-5)
    assert effects.affected == ("legal", "medical")  # the picture has its diagonal all the same
    torch.testing.assert_close(found.values, effects.matrix("margin")[:, [1, 0]])
    assert "margin in nats" in found.measure


ROWS = [
    {"steered": "a", "affected": "a", "value": 0.5, "low": 0.4, "high": 0.6},
    {"steered": "a", "affected": "b", "value": 0.1, "low": -0.1, "high": 0.3},
    {"steered": "b", "affected": "b", "value": 0.2},
]


def test_a_table_of_numbers_will_do() -> None:
    found = view.interference(ROWS)
    assert found.values[0].tolist() == [0.5, 0.1]
    assert math.isnan(float(found.values[1, 0]))
    assert math.isnan(float(found.low[1, 1]))
    texts = {t.get_text() for t in found.plot().axes[0].texts}
    assert texts == {"+0.5", "(+0.1)", "+0.2", ""}


def test_rows_that_are_no_matrix() -> None:
    for rows in ([], [{"steered": "a", "value": 1.0}], ROWS + ROWS[:1]):
        with pytest.raises(SelectionError, match="do not form a matrix"):
            view.interference(rows)
    both = [{**row, "measure": m} for row in ROWS for m in ("margin", "accuracy")]
    with pytest.raises(SelectionError, match="measure='margin'"):
        view.interference(both)
    assert view.interference(both, measure="accuracy").measure == "accuracy"


def test_curves_of_a_sweep_are_what_each_setting_gives() -> None:
    lm = tiny()
    found = sweep(lm, VECTORS["medical"], pairs(), [2.0, 0.0, -2.0], progress=False)
    curves = view.dose_response(found, "margin").curves
    assert list(curves) == ["legal", "medical"]
    for on, points in curves.items():
        assert [point[0] for point in points] == [-2.0, 0.0, 2.0]
        for c, value, _, _ in points:
            with lm.steered(VECTORS["medical"], c):
                expected = steer.preference(lm, pairs().of_domain(on)).margin
            assert value == pytest.approx(expected, abs=1e-5)
    one = view.dose_response(found, on="legal")
    assert list(one.curves) == ["accuracy"]
    assert one.curves["accuracy"][0][2:] == (found.rows[4]["low"], found.rows[4]["high"])


def test_levels_have_a_curve_each() -> None:
    rows = [
        {
            "coefficient.a": c,
            "coefficient.b": 0.0,
            "on": "a",
            "n": 5,
            "expert": p,
            "expert.low": p - 0.1,
            "expert.high": p + 0.1,
            "generic": 1 - p,
            "generic.low": 0.0,
            "generic.high": 1.0,
        }
        for c, p in ((1.0, 0.9), (0.0, 0.5))
    ]
    found = view.dose_response(rows)
    assert found.curves["expert"] == ((0.0, 0.5, 0.4, 0.6), (1.0, 0.9, 0.8, 1.0))
    assert list(found.curves) == ["expert", "generic"]
    assert found.coefficient == "coefficient of a"
    assert view.dose_response(rows, coefficient="a").rows == found.rows
    two = view.dose_response([*rows, *({**row, "on": "b"} for row in rows)], ["expert"])
    assert list(two.curves) == ["a", "b"]
    four = view.dose_response([*rows, *({**row, "on": "b"} for row in rows)])
    assert list(four.curves) == ["a, expert", "a, generic", "b, expert", "b, generic"]


def test_the_curve_of_a_steerability() -> None:
    scores = torch.tensor([[0.0, 1.0], [2.0, 2.0], [3.0, 5.0]])
    found = view.dose_response(Steerability((-1.0, 0.0, 1.0), scores, "margin in nats").curve)
    assert [point[1] for point in found.curves["value"]] == [0.5, 2.0, 4.0]
    assert found.measure == "margin in nats"


def test_what_cannot_be_drawn() -> None:
    row = {"coefficient.a": 1.0, "coefficient.b": 0.0, "accuracy": 1.0}
    other = {**row, "coefficient.a": 0.0, "coefficient.b": 1.0}
    with pytest.raises(SelectionError, match="is ambiguous"):
        view.dose_response([row, other])
    with pytest.raises(SelectionError, match="several values"):
        view.dose_response([row, {**row, "accuracy": 0.0}], coefficient="a")
    with pytest.raises(SelectionError, match="no such number"):
        view.dose_response([row], "margin", coefficient="a")
    with pytest.raises(SelectionError, match="nothing to draw"):
        view.dose_response([row], on="legal")
