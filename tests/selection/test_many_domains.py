"""`select` on many domains: planted directions are found, limits kept, and the choice used."""

import itertools
import math
import sys
from dataclasses import replace

import pytest
import torch

import steer
from steer.errors import CompositionError, SelectionError, SteerError
from steer.selection import CoarseToFine, Limits, Selection
from tests.conformance.cases import mixed
from tests.letters import letter_pairs, planted
from tests.measure.setting import model
from tests.tiny import tiny_model, tiny_tokenizer

NEUTRAL = ("how are you", "what is it")
VALUES = (-1.0, -0.5, 0.0, 0.5, 1.0)


@pytest.fixture(scope="module")
def lm():
    return steer.Model(tiny_model("llama"), tiny_tokenizer())


@pytest.fixture(scope="module")
def asked():
    """One domain wants b's over c's, the other e's over d's, a third is to stay."""
    return {
        "bc": letter_pairs(24, "b", "c", "bc"),
        "de": letter_pairs(24, "e", "d", "de"),
        "fg": letter_pairs(24, "f", "g", "fg"),
    }


@pytest.fixture(scope="module")
def knobs(lm):
    return steer.compose(bc=planted(lm, " b", " c"), de=planted(lm, " d", " e"))


def choose(lm, knobs, asked, **options) -> Selection:
    defaults = {
        "coefficients": VALUES,
        "neutral": NEUTRAL,
        "strategy": "exhaustive",
        "progress": False,
    }
    return steer.select(lm, knobs, asked, **defaults | options)


@pytest.fixture(scope="module")
def found(lm, knobs, asked):
    return choose(lm, knobs, asked)


def test_each_domain_is_moved_the_way_its_pairs_ask(lm, found, asked) -> None:
    assert found.coefficients["bc"] > 0 > found.coefficients["de"]
    assert found.best.objective == max(t.objective for t in found.trials)
    assert len(found.trials) == 25
    assert set(found.test) == set(found.evidence) == {"bc", "de"}
    assert found.likelihood_effect == all(e.corrected <= 0.01 for e in found.evidence.values())
    assert all(e.p_unsteered < 1e-3 for e in found.evidence.values())
    assert all(e.settings == 25 for e in found.evidence.values())
    for domain in ("bc", "de"):
        assert found.test[domain].value > found.baselines[domain]["base"].value
        assert set(found.baselines[domain]) == {"base", "random", "prompted"}


def test_every_trial_is_what_is_measured_one_by_one(lm, knobs, found, asked) -> None:
    text = steer.neutral_text(lm, NEUTRAL)
    halves = {name: part.split(0.5, 0.5, seed=0)[0] for name, part in asked.items()}
    with lm.steered(knobs(0.0)):
        before = steer.preference(lm, halves["fg"]).accuracy.value
    assert [t.coefficients for t in found.trials] == list(itertools.product(VALUES, repeat=2))
    for trial in found.trials[::6]:
        with lm.steered(knobs, list(trial.coefficients)):
            own = {name: steer.preference(lm, part) for name, part in halves.items()}
            kl = steer.kl_divergence(lm, text).value
            nats = sum(float(row.sum()) for row in lm.logprobs(text.prompts, text.responses))
        base = sum(float(row.sum()) for row in lm.logprobs(text.prompts, text.responses))
        values = {name: p.accuracy.value for name, p in own.items()}
        assert {n: m["accuracy"] for n, m in trial.measured.items()} == values
        assert trial.objective == min(values["bc"], values["de"])
        assert trial.off_target == max(0.0, before - values["fg"])
        assert trial.kl == pytest.approx(kl, abs=1e-5)
        assert trial.perplexity == pytest.approx(
            float(torch.tensor((base - nats) / text.tokens).exp()), rel=1e-4
        )


def test_limits_are_kept_and_named_where_they_cost_something(lm, knobs, asked, found) -> None:
    finer = (*VALUES, 0.25, -0.25)
    tight = choose(lm, knobs, asked, limits=Limits(kl=found.best.kl * 0.7), coefficients=finer)
    assert tight.best.kl <= found.best.kl * 0.7
    assert tight.best.objective < found.best.objective
    assert set(tight.active) == {"kl"}
    assert "The limit on kl" in tight.why
    assert "No limit is active" in found.why
    assert tight.second is not None
    assert f"{tight.second.coefficients[0]:g}" in tight.why
    assert all(row["within"] == (row["kl"] <= found.best.kl * 0.7) for row in tight.rows)
    stay = choose(lm, knobs, asked, limits=Limits(off_target=0.0, perplexity=1e9))
    assert stay.best.off_target == 0.0
    with pytest.raises(SelectionError, match="no setting keeps the limits"):
        choose(lm, knobs, asked, limits=Limits(kl=0.0), coefficients=(0.5, 1.0))


def test_coarse_to_fine_is_deterministic_and_leaves_global_state(lm, knobs, asked) -> None:
    state = torch.get_rng_state()
    a, b = (
        choose(lm, knobs, asked, strategy=CoarseToFine(3, 2), neutral=None, seed=5) for _ in "ab"
    )
    assert a.trials == b.trials
    assert a.evidence == b.evidence
    assert torch.equal(state, torch.get_rng_state())
    assert a.best.kl is None
    assert a.front == (max(a.trials, key=lambda t: t.objective),)


def test_it_is_applied_and_saved_in_one_step(lm, found, asked, tmp_path) -> None:
    unseen = asked["bc"].split(0.5, 0.5, seed=0)[1]
    with lm.steered(found):
        assert steer.preference(lm, unseen).accuracy == found.test["bc"]
    found.save(tmp_path / "chosen")
    for domain, c in found.coefficients.items():
        tuning = steer.Vector.load(tmp_path / "chosen" / f"{domain}.safetensors").tuning
        assert (tuning.layer, tuning.coefficient) == (3, c)
        assert tuning.score == found.test[domain].value
        assert tuning.kl == pytest.approx(found.best.kl)
    table = found.to_pandas()
    assert list(table["perplexity_factor"]) == [t.perplexity for t in found.trials]
    assert "perplexity" not in table
    assert "unseen pairs" in repr(found)


def test_a_domain_whose_name_leads_elsewhere_is_not_saved(found, tmp_path) -> None:
    parts = dict(zip(("../out", "b"), found.composition.parts.values(), strict=True))
    renamed = replace(found, composition=steer.compose(parts))
    with pytest.raises(CompositionError, match="cannot be a part of a file name"):
        renamed.save(tmp_path / "chosen")
    assert list(tmp_path.iterdir()) == []


def test_weights_are_searched_too_and_saved_with_their_setting(tmp_path) -> None:
    lm = model()
    both = mixed(lm, "weights")
    data = {"medical": letter_pairs(24, "b", "c", "medical")}
    chosen = choose(lm, both, data, coefficients={both.domains[0]: (0.25, 0.5)})
    text = steer.neutral_text(lm, NEUTRAL)
    with lm.steered(both, list(chosen.best.coefficients)):
        assert chosen.best.kl == pytest.approx(steer.kl_divergence(lm, text).value, rel=1e-4)
    chosen.save(tmp_path)
    for domain, coefficient in chosen.coefficients.items():
        tuning = steer.Vector.load(tmp_path / f"{domain}.safetensors").tuning
        assert (tuning.layer, tuning.coefficient) == (None, coefficient)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"limits": Limits(kl=1.0), "neutral": None}, "limit is set on what is not measured"),
        ({"coefficients": ()}, "coefficients is too short"),
        ({"coefficients": {"typo": (1.0,)}}, "unknown domain"),
        ({"strategy": "guess"}, "strategy is not one of"),
        ({"budget": 0}, "budget must be an integer"),
        ({"budget": True}, "budget must be an integer"),
        ({"limits": {"kl": 1.0}}, r"limits must be Limits(.|\n)*Limits\(kl=1.0\)"),
    ],
)
def test_what_cannot_be_done_is_refused(lm, knobs, asked, change, message: str) -> None:
    with pytest.raises(SteerError, match=message):
        choose(lm, knobs, asked, **change)


@pytest.mark.parametrize("how", ["exhaustive", "coarse_to_fine"])
def test_what_overflows_or_has_no_objective_is_never_chosen(lm, knobs, asked, how) -> None:
    huge = steer.compose(bc=3e36 * knobs.parts["bc"].vector, de=knobs.parts["de"].vector)
    values = {"bc": (3e-37, 300.0), "de": (-1.0, 0.0)}
    options = {"coefficients": values, "strategy": how, "limits": Limits(kl=1e9)}
    found = choose(lm, huge, asked, **options)
    assert found.coefficients["bc"] == pytest.approx(3e-37)
    rows = {row["coefficient.bc"]: row for row in found.rows}
    assert math.isnan(rows[300.0]["objective"])
    assert not rows[300.0]["within"]
    assert len(found.allowed) == 2
    assert all(t.coefficients[0] < 1 for t in (found.best, found.second, *found.front))
    repr(found)

    def fussy(measured):
        return float("nan") if measured["bc"]["accuracy"] > top else 0.0

    top = min(t.measured["bc"]["accuracy"] for t in found.allowed)
    other = choose(lm, huge, asked, objective=fussy, **options)
    assert other.best.objective == 0.0
    with pytest.raises(SelectionError, match="no setting has finite numbers"):
        choose(lm, huge, asked, objective=lambda measured: math.inf, **options)
    with pytest.raises(SelectionError, match="objective returned no number"):
        choose(lm, huge, asked, objective=lambda measured: "good", **options)


def test_the_bar_knows_how_many_settings_there_are(lm, knobs, asked, capsys, monkeypatch) -> None:
    choose(lm, knobs, asked, progress=True, neutral=None, budget=6)
    assert capsys.readouterr().err == "", "a bar was written where nobody watches"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    choose(lm, knobs, asked, progress=True, neutral=None)
    assert "25/25" in capsys.readouterr().err
    choose(lm, knobs, asked, progress=True, neutral=None, budget=6)
    assert "6/6" in capsys.readouterr().err


def test_a_limit_out_of_reach_is_named_alone(lm, knobs, asked) -> None:
    with pytest.raises(SelectionError) as error:
        choose(lm, knobs, asked, limits=Limits(perplexity=0.001))
    assert "expected: perplexity at most 0.001\n" in str(error.value)


def test_pairs_that_do_not_go_with_it_are_refused(lm, knobs, asked) -> None:
    with pytest.raises(SelectionError, match="no domain is asked to move"):
        choose(lm, knobs, {"fg": asked["fg"]})
    with pytest.raises(SelectionError, match="pairs in both"):
        choose(lm, knobs, asked, test={name: part[:2] for name, part in asked.items()})
    nameless = {n: steer.Pairs.of(replace(p, domain=None) for p in a) for n, a in asked.items()}
    with pytest.raises(SelectionError, match="pairs in both"):
        choose(lm, knobs, asked, test=nameless)
    with pytest.raises(SelectionError, match="test pairs lack a domain"):
        choose(lm, knobs, asked, test={"bc": letter_pairs(24, "x", "y", "bc")})
    own = {name: asked[name] for name in ("bc", "de")}
    with pytest.raises(SelectionError, match="limit is set on what is not measured"):
        choose(lm, knobs, own, limits=Limits(off_target=0.1))
