"""The table of a sweep: what it measures, on what, and in which order."""

import math
import sys
from dataclasses import replace

import pytest
import torch
from tqdm.auto import tqdm

import steer
from steer.algebra import Provenance
from steer.errors import (
    AlgebraError,
    ArgumentError,
    CompositionError,
    FitError,
    PairsError,
    SelectionError,
)
from steer.measure import Answers, level_preference, preference, sweep
from steer.measure import _likelihood as likelihood
from steer.report import Report
from tests.conformance.cases import gate, knobs, mixed, vector
from tests.measure.setting import CHOSEN, PROMPTS, REJECTED, model, near, pairs

GRID = (-1.0, 0.0, 0.5)
ANSWERS = Answers(PROMPTS, {"low": REJECTED, "high": CHOSEN, "other": ("a b", "c d e", "f g")})


def the(rows, **wanted):
    found = [row for row in rows if all(row[k] == v for k, v in wanted.items())]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_layers_scopes_coefficients_and_domains(reduce) -> None:
    lm, v, data = model(), vector(1, 2, size=0.5), pairs()
    found = sweep(
        lm, v, data, GRID, layers=(2, 1), scope=("all", "response"), reduce=reduce, progress=False
    )
    assert found.way == "branched"
    assert len(found.rows) == 2 * 2 * 3 * 2
    assert [row["layer"] for row in found.rows[:2]] == [2, 2]
    for layer in (1, 2):
        for scope in ("all", "response"):
            for c in GRID:
                for on in ("medical", "legal"):
                    own = the(
                        found.rows,
                        layer=layer,
                        scope=scope,
                        on=on,
                        **{"coefficient.vector": c},
                    )
                    with lm.steered(v[layer], c, scope=scope):
                        expected = preference(lm, data.of_domain(on), reduce=reduce)
                    assert own["accuracy"] == expected.accuracy.value
                    assert (own["low"], own["high"]) == expected.accuracy.interval
                    score = float(expected.chosen.mean())
                    assert own["margin"] == near(expected.margin, score)
                    assert own["n"] == len(data.of_domain(on))
                    assert own["likelihood"] == pytest.approx(score, rel=1e-5)


def test_levels_with_three_domains_and_a_gate() -> None:
    lm, composed = model(), knobs(gate=gate())
    grid = {"medical": (0.0, 1.0), "financial": (-1.0, 0.5)}
    found = sweep(lm, composed, {"here": ANSWERS}, grid, measure="levels", progress=False)
    assert len(found) == 4
    for row in found.rows:
        assert row["coefficient.legal"] == 0
        setting = {name: row[f"coefficient.{name}"] for name in grid}
        with lm.steered(composed, setting):
            expected = level_preference(lm, PROMPTS, ANSWERS.answers)
        for level in ANSWERS.answers:
            assert row[level] == expected.accuracy(level).value


def test_weights_are_swept_the_plain_way() -> None:
    lm = model()
    composed = mixed(lm, "both")
    found = sweep(lm, composed, pairs(), [{"medical": 1.0}, {"legal": -0.5}], progress=False)
    assert found.way == "plain: weights are displaced"
    for row in found.rows:
        with lm.steered(composed, {k: row[f"coefficient.{k}"] for k in composed.domains}):
            expected = preference(lm, pairs().of_domain(row["on"]))
        assert row["margin"] == near(expected.margin, row["likelihood"])


def test_a_function_is_given_the_steered_model_and_the_data() -> None:
    lm, v = model(), vector(1)

    def margin(steered, part):
        return {"margin": preference(steered, part).margin, "n": len(part)}

    found = sweep(lm, v, pairs(), GRID, measure=margin, progress=False)
    ours = sweep(lm, v, pairs(), GRID, progress=False)
    assert [r["n"] for r in found.rows] == [r["n"] for r in ours.rows]
    for a, b in zip(found.rows, ours.rows, strict=True):
        assert a["margin"] == near(b["margin"], b["likelihood"])
    assert found.way == "one by one"
    assert "margin" in found.measure


def test_every_combination_once() -> None:
    found = sweep(model(), knobs(), pairs(), (0.0, 1.0, 0.0), progress=False)
    rows = [s.coefficients for s in found.settings]
    assert len(rows) == len(set(rows)) == 8
    explicit = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    listed = sweep(model(), knobs(), pairs(), explicit, progress=False)
    assert [s.coefficients for s in listed.settings] == [tuple(row) for row in explicit.tolist()]


@pytest.mark.parametrize(
    "grid", [[0.1, -0.3], {"vector": [0.1, -0.3]}, [{"vector": 0.1}, {"vector": -0.3}]]
)
def test_coefficients_are_kept_as_they_were_given(grid) -> None:
    found = sweep(model(), vector(1), pairs(), grid, progress=False)
    assert [s.coefficients for s in found.settings] == [(0.1,), (-0.3,)]
    frame = found.to_pandas()
    assert len(frame[frame["coefficient.vector"] == 0.1]) == 2
    assert found.best()["coefficient.vector"] in (0.1, -0.3)


def test_every_way_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def uncut(lm, composition, longest):
        return (
            "this layer cannot be cut" if composition.parts["vector"].vector.layers == (1,) else ""
        )

    monkeypatch.setattr(likelihood, "plain_reason", uncut)
    found = sweep(model(), vector(1, 2), pairs(), [0.5], layers=[1, 2], progress=False)
    assert found.way == "plain: this layer cannot be cut; branched"


def test_more_settings_than_run_together() -> None:
    grid = torch.linspace(-1, 1, 70)
    found = sweep(model(), vector(2), pairs(), grid, progress=False)
    assert [s.coefficients[0] for s in found.settings] == grid.tolist()
    with model().steered(vector(2), float(grid[66])):
        expected = preference(model(), pairs().of_domain("legal"))
    row = the(found.rows, on="legal", **{"coefficient.vector": float(grid[66])})
    assert row["margin"] == near(expected.margin, row["likelihood"])


def test_equal_sweeps_are_equal() -> None:
    first, second = (sweep(model(), knobs(), pairs(), GRID, progress=False) for _ in range(2))
    assert first.rows == second.rows
    assert first.fingerprint == second.fingerprint


def test_it_prints_and_turns_into_tables() -> None:
    found = sweep(model(), vector(1), pairs(), torch.linspace(0, 1, 15), progress=False)
    text = repr(found)
    assert "Sweep of 15 settings: preference (mean log-probability), branched" in text
    assert "10 more rows" in text
    assert "coefficient.vector" in found._repr_html_()
    frame = pytest.importorskip("pandas") and found.to_pandas()
    assert list(frame["accuracy"]) == [row["accuracy"] for row in found.rows]


def test_the_best_is_best_where_it_is_worst() -> None:
    table = {
        (0.0,): {"a": 0.5, "b": 0.5},
        (1.0,): {"a": 1.0, "b": 0.4},
        (-2.0,): {"a": 0.6, "b": 0.7},
        (2.0,): {"a": 0.7, "b": 0.6},
        (1.5,): {"a": 0.6, "b": 0.7},
    }
    lm = model()
    steps = iter([n for row in table.values() for n in row.values()])
    data = {"a": pairs()[:1], "b": pairs()[1:2]}
    grid = [c for (c,) in table]
    found = sweep(
        lm, vector(1), data, grid, measure=lambda m, part: {"n": 1, "hit": next(steps)},
        progress=False,
    )  # fmt: skip
    best = found.best()
    assert best["coefficient.vector"] == 1.5
    assert best["hit"] == {"a": 0.6, "b": 0.7}
    with pytest.raises(SelectionError, match="did not measure"):
        found.best("accuracy")


OVERFLOW = steer.Vector.of({1: torch.full((32,), 1e38)})


@pytest.mark.parametrize("measure", ["preference", "levels"])
def test_a_setting_that_overflows_is_nan_and_never_the_best(tmp_path, measure) -> None:
    data = pairs() if measure == "preference" else {"here": ANSWERS}
    number = "accuracy" if measure == "preference" else "high"
    grid, file = (30.0, 0.0, 2.0**-126), tmp_path / "sweep.jsonl"
    options = {"measure": measure, "save": file, "progress": False}
    for _ in ("fresh", "resumed"):
        found = sweep(model(), OVERFLOW, data, grid, **options)
        lost = {
            c: math.isnan(n) for r in found.rows for c, n in [(r["coefficient.vector"], r[number])]
        }
        assert lost == {30.0: True, 0.0: False, 2.0**-126: False}
        assert all(isinstance(row["n"], int) for row in found.rows)
        assert found.best(number)["coefficient.vector"] != 30.0
        assert "1 settings: the model overflows there" in repr(found)
        assert "nan" not in Report.of(found).html.lower()
    alone = sweep(model(), OVERFLOW, data, (30.0,), measure=measure, progress=False)
    assert "overflows" in repr(alone)
    with pytest.raises(SelectionError, match="finite on every domain"):
        alone.best(number)


def lost_above_one(model, part):
    with torch.no_grad():
        (row,) = model.activations(["a b"], layers=[1])
    up = float(row.abs().max()) > 1e6
    return {"n": 2, "x": math.nan if up else 0.5, "y": math.inf if up else 1.0}


def test_a_number_of_a_function_that_is_not_finite_is_nan_and_never_the_best(tmp_path) -> None:
    data = {"medical": pairs()}
    options = {"measure": lost_above_one, "save": tmp_path / "sweep.jsonl", "progress": False}
    for _ in ("fresh", "resumed"):
        found = sweep(model(), OVERFLOW, data, (1.0, 0.0), **options)
        lost, kept = (measured["medical"] for measured in found.measured)
        assert (lost["n"], math.isnan(lost["x"]), math.isnan(lost["y"])) == (2, True, True)
        assert kept == {"n": 2, "x": 0.5, "y": 1.0}
        assert found.best("y")["coefficient.vector"] == 0.0
        assert "not finite 1 settings" in " ".join(repr(found).split())
        assert "overflows" not in repr(found)


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_how_likelihoods_were_reduced_is_said(reduce) -> None:
    for measure, data in (("preference", pairs()), ("levels", ANSWERS)):
        options = {"measure": measure, "reduce": reduce, "progress": False}
        found = sweep(model(), vector(1), data, (0.0,), **options)
        assert f"{measure} ({reduce} log-probability)" in repr(found)
    counted = sweep(model(), vector(1), pairs(), (0.0,), measure=lost_above_one, progress=False)
    assert "log-probability" not in repr(counted)


def test_a_function_that_returns_no_number_is_told_where(tmp_path) -> None:
    for wrong in ("high", None):
        with pytest.raises(SelectionError, match=r"at vector=0\.5 on 'medical'"):
            sweep(
                model(), vector(1), {"medical": pairs()}, (0.5,), progress=False,
                measure=lambda lm, part, wrong=wrong: {"x": wrong},
            )  # fmt: skip


def test_the_bar_moves_while_settings_are_computed_together(monkeypatch) -> None:
    moved = []

    class Bar(tqdm):
        def update(self, n: float = 1) -> bool | None:
            moved.append(n)
            return super().update(n)

    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    sweep(model(), vector(1), pairs(), torch.linspace(0, 1, 60), max_tokens=64)
    assert sum(moved) == 60
    assert max(moved) < 40


def nothing_measured(model, part):
    return {}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"grid": []}, SelectionError),
        ({"grid": {}}, SelectionError),
        ({"grid": {"vector": []}}, SelectionError),
        ({"grid": {"other": [1.0]}}, CompositionError),
        ({"grid": [float("nan")]}, CompositionError),
        ({"grid": ["0.5"]}, CompositionError),
        ({"grid": [True]}, CompositionError),
        ({"grid": [None]}, CompositionError),
        ({"grid": [10**400]}, CompositionError),
        ({"grid": [[1.0, 2.0]]}, CompositionError),
        ({"grid": torch.tensor(0.5)}, SelectionError),
        ({"grid": torch.zeros(1, 1, 1)}, SelectionError),
        ({"layers": [3]}, AlgebraError),
        ({"layers": []}, SelectionError),
        ({"layers": 1}, ArgumentError),
        ({"layers": [1.5]}, ArgumentError),
        ({"grid": {"vector": 0.5}}, ArgumentError),
        ({"data": 5}, ArgumentError),
        ({"scope": "answers"}, CompositionError),
        ({"data": ANSWERS}, SelectionError),
        ({"data": steer.Pairs.of([])}, SelectionError),
        ({"data": {}}, SelectionError),
        ({"data": ["a"]}, PairsError),
        ({"measure": "levels"}, SelectionError),
        ({"measure": "accuracy"}, SelectionError),
        ({"measure": nothing_measured}, SelectionError),
        ({"max_tokens": 0}, ArgumentError),
    ],
    ids=lambda value: getattr(value, "__name__", None) or "-".join(map(str, value)),
)
def test_what_cannot_be_swept_is_refused(change, error) -> None:
    request = {"data": pairs(), "grid": [1.0], **change}
    with pytest.raises(error):
        sweep(model(), vector(1), progress=False, **request)


def test_answers_need_one_of_each_level() -> None:
    for answers in ({"low": CHOSEN}, {"low": CHOSEN, "high": CHOSEN[:2]}):
        with pytest.raises(SelectionError, match="levels cannot be compared"):
            Answers(PROMPTS, answers)
    with pytest.raises(SelectionError):
        Answers((), {"low": (), "high": ()})


def test_pairs_in_a_list_are_pairs() -> None:
    known = sweep(model(), vector(1), pairs(), [1.0], progress=False)
    for data in (
        list(pairs()),
        iter(pairs()),
        {d: [*pairs().of_domain(d)] for d in pairs().domains},
    ):
        found = sweep(model(), vector(1), data, [1.0], progress=False)
        assert found.fingerprint == known.fingerprint
        assert found.rows == known.rows


def test_a_vector_of_another_model_is_swept_where_it_is_said_to_fit() -> None:
    other = replace(model().info, model_id="elsewhere", template="0" * 64)
    foreign = replace(vector(1), provenance=Provenance(model=other))
    with pytest.raises(FitError, match=r"vector\.for_model\(lm\.info\)"):
        sweep(model(), foreign, pairs(), [0.5], progress=False)
    found = sweep(model(), foreign.for_model(model().info), pairs(), [0.5], progress=False)
    assert found.rows == sweep(model(), vector(1), pairs(), [0.5], progress=False).rows


def test_a_grid_may_be_rows_or_a_tensor() -> None:
    knobs = steer.compose(a=vector(1), b=vector(2))
    rows = [(0.0, 0.5), (1.0, 0.0)]
    for grid in (rows, [[0.0, 0.5], [1.0, 0.0]], torch.tensor(rows)):
        found = sweep(model(), knobs, pairs(), grid, progress=False)
        assert [s.coefficients for s in found.settings] == rows
    values = sweep(model(), vector(1), pairs(), torch.tensor([0.0, 0.5]), progress=False)
    assert [s.coefficients for s in values.settings] == [(0.0,), (0.5,)]
