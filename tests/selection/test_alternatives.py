"""Selection: planted vectors are found, useless ones are seen to be useless."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import steer
from steer.errors import (
    ArgumentError,
    CompositionError,
    PairsError,
    SelectionError,
    VectorFileError,
)
from steer.measure import random_like
from steer.report import Report
from tests import letters
from tests.letters import letter_pairs, towards
from tests.tiny import tiny_model, tiny_tokenizer

LIMITS = steer.Limits(kl=50.0)
OPTIONS = {"limits": LIMITS, "neutral": ("how are you", "what is it"), "progress": False}


def only(by_domain):
    """What there is of the one domain."""
    (found,) = by_domain.values()
    return found


@pytest.fixture(scope="module")
def lm():
    return steer.Model(tiny_model("llama"), tiny_tokenizer())


@pytest.fixture(scope="module")
def pairs():
    return letter_pairs(24)


@pytest.fixture(scope="module")
def planted(lm):
    v = towards(lm, " b", " c")
    return steer.Vector.of({0: torch.zeros_like(v) + 1e-6, 3: 20 * v / v.norm()})


def test_the_planted_layer_is_chosen_and_beats_the_baselines(lm, pairs, planted):
    choice = steer.select(lm, {"planted": planted}, pairs, coefficients=(0.1, 1.0), **OPTIONS)
    assert (choice.layer, choice.position) == (3, "planted")
    assert only(choice.test).value > only(choice.baselines)["base"].value
    assert set(only(choice.baselines)) == {"base", "random", "prompted"}
    assert len(choice.trials) == 4
    tuning = choice.vector.tuning
    assert (tuning.layer, tuning.coefficient) == (choice.layer, choice.coefficient)
    assert choice.vector.layers == (3,)


def test_a_vector_that_is_used_backwards_is_said_to_be(lm, pairs, planted):
    for vector, coefficient in ((planted, 1.0), (-planted, -1.0)):
        choice = steer.select(lm, vector, pairs, coefficients=(coefficient,), **OPTIONS)
        assert ("is negative: the vector is used backwards" in repr(choice)) == (coefficient < 0)


def test_a_choice_is_steered_with_saved_and_tabled_as_a_selection_is(lm, pairs, planted, tmp_path):
    gate = steer.domain_gate(lm, {"letters": ["a b c", "b a c"], "other": ["x y", "y z"]}, layer=0)
    options = {"operator": "ablate", "scope": "response", "coefficients": (0.5, 0.75)}
    vector = replace(planted[3], provenance=steer.algebra.Provenance(domain="letters"))
    choice = steer.select(lm, vector, pairs, gate=gate, **options, **OPTIONS)
    knobs = lm.steered(choice).composition
    (part,) = knobs.parts.values()
    assert (part.operator, part.scope, knobs.gate) == ("ablate", steer.Scope("response"), gate)
    assert knobs.coefficients.tolist() == [[choice.coefficient]]
    assert lm.steered(choice, 0.25).composition.coefficients.tolist() == [[0.25]]
    text = steer.neutral_text(lm, OPTIONS["neutral"])
    with lm.steered(choice):
        assert steer.kl_divergence(lm, text).value == pytest.approx(choice.best.kl, abs=1e-6)
    assert [row["coefficient.letters"] for row in choice.rows] == [0.5, 0.75]
    assert list(choice.to_pandas()["kl"]) == [trial.kl for trial in choice.trials]
    choice.save(tmp_path / "chosen")
    (name,) = choice.coefficients
    loaded = steer.Vector.load(tmp_path / "chosen" / f"{name}.safetensors")
    assert loaded.tuning.coefficient == choice.coefficient
    with pytest.raises(VectorFileError, match="a folder is wanted"):
        choice.save(tmp_path / "chosen.safetensors")
    many = {"coefficients": (0.0, 0.5), "neutral": None, "progress": False}
    selection = steer.select(lm, choice, pairs, **many)
    again = lm.steered(selection).composition.coefficients
    assert again.tolist() == [list(selection.coefficients.values())]
    swept = steer.sweep(lm, selection, pairs, [0.5], progress=False)
    assert (*selection.coefficients,) == swept.domains == (name,) == ("letters",)


def test_a_tuned_vector_without_a_coefficient_is_warned_of(lm, pairs, planted):
    choice = steer.select(lm, planted[3], pairs, coefficients=(0.5,), **OPTIONS)
    for what in (choice.vector, {"letters": choice.vector}):
        with pytest.warns(UserWarning, match=r"it is 1; .+ tuned to 0\.5; pass") as caught:
            lm.steered(what)
        assert [Path(w.filename).name for w in caught] == [Path(__file__).name]
    for steered in (lm.steered(choice.vector, 1.0), lm.steered(choice)):
        assert not steered.active  # and nothing was warned of, which would be an error


def test_a_vector_that_does_nothing_is_said_to_do_nothing(lm, pairs):
    nothing = steer.Vector.of({1: torch.full((32,), 1e-7)})
    choice = steer.select(lm, nothing, pairs, coefficients=(1.0,), **OPTIONS)
    assert not choice.likelihood_effect
    assert only(choice.test).value == only(choice.baselines)["base"].value
    assert "No effect on the likelihood" in repr(choice)
    assert "No visible change" in repr(choice)


def test_the_budget_is_kept_and_an_impossible_one_refused(lm, pairs, planted):
    tight = {**OPTIONS, "limits": steer.Limits(kl=1e-3)}
    choice = steer.select(lm, planted, pairs, coefficients=(1e-3, 1.0), **tight)
    assert choice.best.kl <= 1e-3
    with pytest.raises(SelectionError, match=r"exceeds kl by"):
        steer.select(
            lm,
            planted[3],
            pairs,
            coefficients=(1.0,),
            **{**OPTIONS, "limits": steer.Limits(kl=1e-9)},
        )


def test_equal_seeds_give_equal_choices_and_leave_the_global_state(lm, pairs, planted):
    before = torch.get_rng_state()
    a, b = (
        steer.select(lm, planted, pairs, coefficients=(0.5, 1.0), seed=3, **OPTIONS)
        for _ in range(2)
    )
    assert a.trials == b.trials
    assert a.baselines == b.baselines
    assert torch.equal(before, torch.get_rng_state())


def test_test_pairs_that_were_used_to_choose_are_refused(lm, pairs, planted):
    with pytest.raises(SelectionError, match="pairs in both"):
        steer.select(lm, planted, pairs, test=pairs[:3], **OPTIONS)
    nameless = steer.Pairs.of(replace(pair, domain=None) for pair in pairs)
    nameless = (
        nameless if nameless != pairs else steer.Pairs.of(replace(p, domain="x") for p in pairs)
    )
    with pytest.raises(SelectionError, match="pairs in both"):
        steer.select(lm, planted, pairs, test=nameless, **OPTIONS)


def test_half_of_the_pairs_is_kept_back_as_a_split_in_three_does(lm, pairs, planted):
    """Of pairs that were split 60 and 40 they are the last two parts of the default split."""
    _, held_out = pairs.split(0.6, 0.4)
    _, validation, test = pairs.split()
    options = {**OPTIONS, "layers": [3], "coefficients": (0.5, 1.0), "answers": False}
    one = steer.select(lm, planted, held_out, **options)
    other = steer.select(lm, planted, validation, test=test, **options)
    assert one.trials == other.trials
    assert one.evidence == other.evidence
    assert only(one.test).n == len(test) == round(0.2 * len(pairs))


def test_pairs_in_the_place_of_a_recording_are_refused_with_what_to_do(lm, pairs):
    with pytest.raises(ArgumentError, match=r"found: +Pairs of Pair\n[\s\S]*steer\.record"):
        steer.select(lm, pairs, pairs, **OPTIONS)


def test_an_option_that_there_is_not_is_refused(lm, pairs, planted):
    with pytest.raises(TypeError, match="colour"):
        steer.select(lm, planted, pairs, colour="red")
    with pytest.raises(SelectionError, match="layers for alternatives only"):
        steer.select(lm, steer.compose(letters=planted), pairs, layers=[3])
    with pytest.raises(ArgumentError, match="limits must be Limits"):
        steer.select(lm, planted, pairs, limits={"kl": 1.0})


def test_alternatives_are_not_named_like_domains(lm, pairs, planted):
    with pytest.raises(SelectionError, match=r"alternatives, or be used together(.|\n)*compose"):
        steer.select(lm, {"letters": planted, "other": planted}, pairs, **OPTIONS)


def test_a_setting_that_overflows_is_never_chosen(lm, pairs, planted):
    huge = steer.Vector.of({3: planted.direction(3) * 3e36})
    options = {**OPTIONS, "both_ways": True}
    choice = steer.select(lm, huge, pairs, coefficients=(300.0, 3e-37, 200.0), **options)
    assert choice.coefficient == 3e-37
    assert [math.isnan(trial.accuracy) for trial in choice.trials] == [False, True, True]
    assert "Selection" in repr(choice)
    assert "nan" not in Report.of(choice).html.lower()
    with pytest.raises(SelectionError, match="no setting has finite numbers"):
        steer.select(lm, huge, pairs, coefficients=(300.0,), **options)


def test_a_budget_that_is_no_number_is_refused(lm, pairs, planted):
    for budget in (float("nan"), -1.0):
        with pytest.raises(ArgumentError, match="the limit kl must be"):
            steer.select(lm, planted, pairs, **{**OPTIONS, "limits": steer.Limits(kl=budget)})


def test_nothing_to_choose_from_is_refused(lm, pairs, planted):
    with pytest.raises(SelectionError, match="nothing to choose from"):
        steer.select(lm, planted, pairs, layers=[2], **OPTIONS)


def test_both_ways_asks_for_both_ends_of_the_knob(lm, pairs, planted):
    one, both = (
        steer.select(lm, planted[3], pairs, coefficients=(1.0,), both_ways=b, **OPTIONS)
        for b in (False, True)
    )
    with lm.steered(planted[3], -1.0):
        back = steer.preference(lm, pairs.split(0.5, 0.5)[0].swap())
    assert both.best.accuracy == pytest.approx((one.best.accuracy + back.accuracy.value) / 2)


def test_the_choice_is_tested_at_both_ends(lm, pairs):
    v = letters.planted(lm)
    both, one = (
        steer.select(lm, v, pairs, coefficients=(1.0,), both_ways=b, **OPTIONS)
        for b in (True, False)
    )
    unseen = pairs.split(0.5, 0.5)[1].swap()
    base = steer.preference(lm, unseen)
    with lm.steered(v, -1.0):
        back = steer.preference(lm, unseen)
    assert (only(both.back).steered, only(both.back).base) == (back.accuracy, base.accuracy)
    assert (
        only(both.back).evidence.gained == int((back.margins > base.margins).sum()) == len(unseen)
    )
    assert (only(both.test), only(both.evidence)) == (only(one.test), only(one.evidence))
    assert one.back is None
    assert both.likelihood_effect
    assert "turned back" in repr(both)
    assert "turned back" not in repr(one)


def test_a_knob_that_fails_at_one_end_does_not_work(lm, pairs):
    choice = steer.select(
        lm, letters.planted(lm), pairs, coefficients=(1.0,), both_ways=True, **OPTIONS
    )
    assert choice.likelihood_effect
    for end in ("back", "held_out"):
        ((name, found),) = getattr(choice, end).items()
        weak = replace(found, evidence=replace(found.evidence, p_random=0.2))
        assert not replace(choice, **{end: {name: weak}}).likelihood_effect


def test_a_setting_at_zero_changes_no_pair(lm, planted):
    pairs = letter_pairs(60)
    for knob in (planted, random_like(planted, 1)):
        choice = steer.select(lm, knob, pairs, layers=[3], coefficients=(0.0,), **OPTIONS)
        assert (only(choice.evidence).gained, only(choice.evidence).lost) == (0, 0)
        assert only(choice.test) == only(choice.baselines)["base"]
    many = steer.select(
        lm,
        steer.compose(letters=planted),
        {"letters": pairs},
        coefficients=(0.0,),
        neutral=None,
        progress=False,
    )
    assert (many.evidence["letters"].gained, many.evidence["letters"].lost) == (0, 0)


def test_a_random_direction_has_the_norm_and_nothing_else(planted):
    random = random_like(planted, seed=0)
    assert random.layers == planted.layers
    for layer in planted.layers:
        norms = [float(v.direction(layer).norm()) for v in (random, planted)]
        assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    assert abs(random[3].cosine(planted[3])) < 0.7
    assert torch.equal(random.direction(3), random_like(planted, seed=0).direction(3))


def test_an_instruction_becomes_the_prompted_baseline(lm, pairs, planted):
    found = steer.select(lm, planted[3], pairs, coefficients=(1.0,), instruction="say b", **OPTIONS)
    told = only(found.held_out).prompted
    prefix = (steer.Message("system", "say b"),)
    expected = steer.preference(lm, pairs.split(0.5, 0.5)[1], prefix=prefix).accuracy
    assert told == expected


def test_pairs_in_a_list_are_pairs(lm, pairs, planted):
    known = steer.select(lm, planted, pairs[:16], test=pairs[16:], coefficients=(1.0,), **OPTIONS)
    found = steer.select(
        lm, planted, list(pairs[:16]), test=iter(pairs[16:]), coefficients=(1.0,), **OPTIONS
    )
    assert (found.trials, only(found.test).value) == (known.trials, only(known.test).value)
    options = {"coefficients": (0.0, 1.0), "neutral": None, "progress": False}
    several = steer.select(lm, steer.compose(letters=planted), list(pairs), **options)
    alike = steer.select(lm, steer.compose(letters=planted), {"letters": list(pairs)}, **options)
    assert several.trials == alike.trials
    with pytest.raises(PairsError, match="not a Pair"):
        steer.select(lm, planted, ["a"], **OPTIONS)


@pytest.mark.parametrize("odd", ["a", None, True, 10**400])
def test_a_coefficient_is_a_number(lm, pairs, planted, odd):
    with pytest.raises(CompositionError):
        steer.select(lm, planted, pairs, coefficients=[odd], **OPTIONS)
    for values in ([odd], {"letters": [odd]}):
        with pytest.raises(CompositionError):
            steer.select(lm, steer.compose(letters=planted), pairs, coefficients=values)
    if isinstance(odd, str | bool):
        with pytest.raises(ArgumentError, match="budget"):
            steer.select(lm, planted, pairs, budget=odd)


@pytest.mark.parametrize("option", [{"layers": 3}, {"coefficients": 0.5}])
def test_several_are_given_in_a_sequence(lm, pairs, planted, option):
    with pytest.raises(ArgumentError, match="must be a sequence"):
        steer.select(lm, planted, pairs, **OPTIONS, **option)
    for values in (0.5, {"letters": 0.5}):
        with pytest.raises(ArgumentError, match="must be a sequence"):
            steer.select(
                lm, steer.compose(letters=planted), pairs, coefficients=values, progress=False
            )


@pytest.mark.filterwarnings("ignore::steer.errors.DataWarning")
def test_of_a_few_pairs_nothing_can_be_said_and_pairs_used_before_are_noticed(lm, pairs, planted):
    few = steer.select(lm, planted, pairs[:8], coefficients=(1.0,), layers=[3], **OPTIONS)
    assert only(few.test).n < only(few.evidence).needed
    assert "too few pairs to tell" in " ".join(repr(few).split())
    made = steer.mean_difference(steer.record(lm, pairs, progress=False), position="template[-1]")
    with pytest.warns(UserWarning, match="those that the vector was made from"):
        steer.select(lm, made[3], pairs, coefficients=(1.0,), **OPTIONS)
