"""Steerability and off-target effects of vectors, against one evaluation per setting."""

import pytest
import torch

import steer
from steer.errors import ArgumentError, CompositionError, JudgeError, SelectionError
from steer.measure import (
    Share,
    Verdict,
    baselines,
    judge_answers,
    off_target,
    preference,
    steerability,
)
from steer.report import Report
from steer.selection import compare_at_kl
from tests.measure.setting import model, pairs

COEFFICIENTS = (-1.0, 0.0, 0.5)


@pytest.fixture(scope="module")
def lm():
    return model()


@pytest.fixture(scope="module")
def knobs():
    generator = torch.Generator().manual_seed(1)
    vectors = {
        name: steer.Vector.of({layer: torch.randn(32, generator=generator)})
        for name, layer in (("medical", 1), ("legal", 2))
    }
    return steer.compose(vectors)(medical=1.5, legal=-2.0)


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_margins_are_those_of_one_evaluation_per_coefficient(lm, knobs, reduce):
    found = steerability(lm, knobs, pairs(), COEFFICIENTS, domain="legal", reduce=reduce)
    for c, row in zip(COEFFICIENTS, found.scores, strict=True):
        with lm.steered(knobs, legal=c):
            wanted = preference(lm, pairs(), reduce=reduce).margins
        assert torch.allclose(row, wanted, atol=1e-4)
    assert reduce in found.rows[0]["measure"]
    assert found.coefficients == COEFFICIENTS


def test_one_vector_needs_no_domain_and_several_do(lm, knobs):
    vector = knobs.parts["legal"].vector
    alone = steerability(lm, vector, pairs(), COEFFICIENTS)
    among = steerability(lm, knobs, pairs(), COEFFICIENTS, domain="legal")
    assert torch.allclose(alone.scores, among.scores, atol=1e-5)
    with pytest.raises(SelectionError, match="which coefficient to turn"):
        steerability(lm, knobs, pairs(), COEFFICIENTS)
    with pytest.raises(CompositionError, match="unknown domain"):
        steerability(lm, knobs, pairs(), COEFFICIENTS, domain="financial")


@pytest.mark.parametrize("coefficients", [(), (1.0,), (1.0, 1.0)])
def test_one_coefficient_has_no_slope(lm, knobs, coefficients):
    with pytest.raises(SelectionError, match="no slope"):
        steerability(lm, knobs, pairs(), coefficients, domain="legal")


def test_no_pairs_are_refused(lm, knobs):
    with pytest.raises(SelectionError, match="nothing to measure on"):
        steerability(lm, knobs, pairs()[:0], domain="legal")
    with pytest.raises(SelectionError, match="nothing to measure on"):
        off_target(lm, knobs, {"legal": pairs()[:0]})


@pytest.fixture(scope="module")
def matrix(lm, knobs):
    return off_target(lm, knobs, pairs())


def test_each_cell_is_one_vector_on_one_domain(lm, knobs, matrix):
    assert matrix.steered == ("medical", "legal")
    assert set(matrix.affected) == {"medical", "legal"}
    for name, c in (("medical", 1.5), ("legal", -2.0)):
        for affected in matrix.affected:
            part = pairs().of_domain(affected)
            before = preference(lm, part)
            with lm.steered(knobs, {name: c}):
                after = preference(lm, part)
            margin = matrix.change(name, affected, "margin")
            assert margin.value == pytest.approx(after.margin - before.margin, abs=1e-4)
            accuracy = matrix.change(name, affected)
            assert accuracy.value == after.accuracy.value - before.accuracy.value
            i, j = matrix.steered.index(name), matrix.affected.index(affected)
            assert float(matrix.matrix("margin")[i, j]) == margin.value


def test_the_rows_and_the_worst_cell(matrix):
    assert len(matrix.rows) == 8
    assert {(row["steered"], row["coefficient"]) for row in matrix.rows} == {
        ("medical", 1.5),
        ("legal", -2.0),
    }
    assert {row["measure"] for row in matrix.rows} == {
        "change of preference accuracy (mean log-probability)",
        "change of margin in nats (mean log-probability)",
    }
    off = [
        matrix.change(s, a, "margin").value
        for s in matrix.steered
        for a in matrix.affected
        if s != a
    ]
    assert abs(matrix.worst("margin").value) == max(map(abs, off))
    assert matrix.value == matrix.worst().value
    assert matrix.interval[0] <= matrix.value <= matrix.interval[1]


def test_coefficients_may_be_given_and_other_domains_measured(lm, knobs):
    vector = knobs.parts["legal"].vector
    data = {"own": pairs()[:1], "other": pairs()[1:]}
    found = off_target(lm, {"own": vector}, data, 0.5)
    assert (found.coefficients, found.affected) == ({"own": 0.5}, ("own", "other"))
    with lm.steered(vector, 0.5):
        after = preference(lm, pairs()[1:]).margin
    change = found.change("own", "other", "margin").value
    assert change == pytest.approx(after - preference(lm, pairs()[1:]).margin, abs=1e-4)
    with pytest.raises(SelectionError, match="one coefficient"):
        off_target(lm, {"own": vector}, data, [{"own": 1.0}, {"own": 2.0}])


def test_generated_answers_are_judged_by_domain(lm, knobs):
    judges = {
        "medical": lambda prompt, text: "long" if len(text) > 8 else "short",
        "legal": lambda prompt, text: text[:1] or None,
    }
    found = off_target(
        lm, knobs, pairs(), judge=judges, wanted={"medical": "long", "legal": "a"}, max_new_tokens=5
    )
    for name, c in found.coefficients.items():
        for affected in found.affected:
            prompts = [pair.prompt for pair in pairs().of_domain(affected)]
            with lm.steered(knobs, {name: c}):
                texts = lm.generate(prompts, max_new_tokens=5)
            wanted = {"medical": "long", "legal": "a"}[affected]
            share = judge_answers(judges[affected], prompts, texts, wanted=wanted).accuracy
            assert found.judged[name, affected].answers == tuple(texts)
            after = found.change(name, affected, "judged").after
            assert after == share == Share(share.hits, len(prompts))
    assert len(found.rows) == 12


def test_a_judge_may_read_the_unsteered_model(lm, knobs):
    steered = []

    def judge(prompt, text):
        steered.append(bool(lm.steering))
        return "long" if len(text) > 3 else "short"

    off_target(lm, knobs, pairs(), judge=judge, wanted="long", max_new_tokens=5)
    assert steered
    assert not any(steered)


def test_a_judged_change_that_is_undefined_is_left_empty(lm, knobs):
    def judge(prompt, text):
        return "long" if len(text) > 8 else "short"

    found = off_target(lm, knobs, pairs(), judge=judge, max_new_tokens=5)
    judged = [row for row in found.rows if "judged" in row["measure"]]
    assert [(row["value"], row["low"]) for row in judged] == [(None, None)] * 4
    assert "change of judged" in repr(found)
    assert "change of judged" in found._repr_html_()
    assert "Interference" in Report.of(found).html
    with pytest.raises(SelectionError):
        found.change("medical", "legal", "judged")


def test_answers_that_were_not_judged_can_be_judged_again(lm, knobs):
    asked = pairs()[0].prompt

    def judge(prompt, text):
        return Verdict("long" if len(text) > 8 else "short")

    def unheard(prompt, text):
        return Verdict(None, error="no route") if prompt == asked else judge(prompt, text)

    options = {"wanted": "long", "max_new_tokens": 5}
    found = off_target(lm, knobs, pairs(), judge=unheard, **options)
    empty = [row["affected"] for row in found.rows if row["value"] is None]
    assert empty == ["medical"] * 2
    with pytest.raises(JudgeError, match="not judged"):
        found.change("legal", "medical", "judged")
    whole = off_target(lm, knobs, pairs(), judge=judge, **options)
    assert found.again(judge).rows == found.again({"medical": judge, "legal": judge}).rows
    assert found.again(judge).rows == whole.rows


def test_cells_and_judges_that_are_missing_are_named(lm, knobs, matrix):
    with pytest.raises(SelectionError, match="nothing was judged"):
        matrix.change("medical", "legal", "judged")
    with pytest.raises(SelectionError, match="no such cell"):
        matrix.change("medical", "financial")
    with pytest.raises(SelectionError, match="no judge"):
        off_target(lm, knobs, pairs(), judge={"legal": lambda p, a: "x"}, max_new_tokens=2)
    alone = off_target(lm, knobs.parts["legal"], {"vector": pairs()})
    with pytest.raises(SelectionError, match="no effect off target"):
        alone.worst()


def test_pairs_in_a_list_are_pairs(lm, knobs):
    known = off_target(lm, knobs, pairs(), progress=False)
    found = off_target(lm, knobs, list(pairs()), progress=False)
    assert found.rows == known.rows
    with pytest.raises(ArgumentError, match="must be a sequence"):
        off_target(lm, knobs, 5, progress=False)
    vector, options = knobs.parts["legal"].vector, {"neutral": ["who"], "progress": False}
    several = [
        compare_at_kl(lm, {"v": vector}, given, 0.01, **options).rows
        for given in (pairs(), iter(pairs()))
    ]
    assert several[0] == several[1]
    shots = steer.Pairs.of([steer.Pair("a", "b", "c")])
    beside = [
        baselines(lm, vector, given, shots=shown, seeds=(0,), progress=False).rows
        for given, shown in ((pairs(), shots), (iter(pairs()), iter(shots)))
    ]
    assert beside[0] == beside[1]
