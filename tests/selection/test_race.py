"""A race: candidates stand at equal KL, and the planted one wins."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy.stats import t as student

import steer
from steer.algebra import Provenance
from steer.errors import SelectionError
from steer.measure import kl_divergence
from steer.measure._scores import DataScorer
from steer.selection import Race, SettingResult, worst_accuracy
from steer.selection._candidates import candidates_of
from steer.selection._race import _best, _Final
from steer.selection._screen import rank_correlation, unscreened
from tests.letters import letter_pairs, noise_and_planted, planted, towards
from tests.tiny import tiny_model, tiny_tokenizer

NEUTRAL = ("how are you", "what is it", "a b c", "b c a", "c a b", "x y z")


@pytest.fixture(scope="module")
def lm() -> steer.Model:
    return steer.Model(tiny_model("llama"), tiny_tokenizer())


@pytest.fixture(scope="module")
def vectors(lm: steer.Model) -> dict[str, steer.Vector]:
    return noise_and_planted(lm)


def test_the_planted_vector_wins_at_the_budget(
    lm: steer.Model, vectors: dict[str, steer.Vector]
) -> None:
    found = steer.select(
        lm, vectors, letter_pairs(40), limits=steer.Limits(kl=0.3), neutral=NEUTRAL, progress=False
    )
    assert (found.position, found.strategy) == ("planted", "race")
    assert found.best.kl is not None
    assert 0 < found.best.kl <= 0.3
    assert found.likelihood_effect
    assert found.screened is not None
    assert found.screened.candidates == lm.n_layers + len(vectors["planted"].layers)
    assert found.kl is not None  # on prompts of its own
    assert {t.candidate for t in found.trials} == {"noise", "planted"}
    assert all(t.complete for t in found.allowed)
    assert "screened" in repr(found)
    (evidence,) = found.evidence.values()
    raced = {(t.candidate, t.layer) for t in found.trials}
    assert evidence.settings == len(raced) < len(found.trials)  # heats and strengths do not count


def test_candidates_race_at_the_coefficient_that_spends_the_budget(
    lm: steer.Model, vectors: dict[str, steer.Vector]
) -> None:
    found = steer.select(
        lm, vectors, letter_pairs(40), limits=steer.Limits(kl=0.3), neutral=NEUTRAL, progress=False
    )
    text = steer.neutral_text(lm, NEUTRAL[0::3])  # what a race of six prompts calibrates on
    heats = {(t.candidate, t.layer, t.coefficients) for t in found.trials if not t.complete}
    assert len(heats) >= 3
    for name, layer, coefficients in heats:
        assert layer is not None
        with lm.steered(vectors[name][layer], coefficients[0]):
            kl = kl_divergence(lm, text)
        (low, high), n = kl.interval, kl.n
        upper = kl.value + (high - kl.value) / student.ppf(0.975, n - 1)
        assert low < 0.9 * 0.3 - 1e-4 <= upper <= 0.3 + 1e-4


def test_an_equal_seed_gives_an_equal_race(
    lm: steer.Model, vectors: dict[str, steer.Vector]
) -> None:
    state = torch.get_rng_state()
    one, other = (
        steer.select(lm, vectors, letter_pairs(24), neutral=NEUTRAL, seed=3, progress=False)
        for _ in range(2)
    )
    assert [t.coefficients for t in one.trials] == [t.coefficients for t in other.trials]
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.filterwarnings("ignore::steer.errors.DataWarning")  # letters
def test_a_recording_is_a_set_of_alternatives_without_positions_that_see_nothing(
    lm: steer.Model,
) -> None:
    recording = steer.record(
        lm, letter_pairs(12), at=["response_mean", "prompt_last"], progress=False
    )
    names = {c.name for c in candidates_of(recording, None, None, None, None)}
    assert names == {"response_mean"}
    found = steer.select(lm, recording, letter_pairs(30)[12:], neutral=NEUTRAL, progress=False)
    assert found.position == "response_mean"
    assert found.vector.layers == (found.layer,)


def test_few_enter_and_they_are_spread(lm: steer.Model) -> None:
    generator = torch.Generator().manual_seed(1)
    many = {
        f"p{k}": steer.Vector.of(
            {layer: torch.randn(lm.d_model, generator=generator) for layer in range(lm.n_layers)}
        )
        for k in range(5)
    }
    race = Race(keep=8, at_random=2)
    found = steer.select(
        lm, many, letter_pairs(24), strategy=race, neutral=NEUTRAL, answers=False, progress=False
    )
    assert found.screened is not None
    assert (found.screened.candidates, found.screened.kept) == (20, 8)
    raced = {(t.candidate, t.layer) for t in found.trials}
    assert len(raced) == 8
    assert len({name for name, _ in raced}) >= 3
    assert len({layer for _, layer in raced}) >= 3


def test_judged_answers_order_settings_that_accuracy_cannot_tell_apart(lm: steer.Model) -> None:
    vector = planted(lm)
    asked: list[str] = []

    def judge(prompt: object, answer: str) -> float:
        asked.append(answer)
        return float(len(answer))

    found = steer.select(lm, vector, letter_pairs(24), judge=judge, neutral=NEUTRAL, progress=False)
    assert found.visible is not None
    assert found.visible.judged is not None
    assert len(asked) >= 2 * len(found.visible.answers)


@pytest.mark.parametrize("budget", [6, 13, 30])
def test_a_budget_is_the_most_settings_of_a_race(
    lm: steer.Model, vectors: dict[str, steer.Vector], budget: int
) -> None:
    options = {"neutral": NEUTRAL, "answers": False, "progress": False}
    found = steer.select(lm, vectors, letter_pairs(60), budget=budget, **options)
    assert budget / 2 < len(found.trials) <= budget
    assert found.best.complete
    unseen = steer.select(lm, vectors, letter_pairs(60), scope="before:x", budget=budget, **options)
    assert len(unseen.trials) <= budget
    assert unseen.screened is not None
    assert ("the budget has no room for it" in str(unseen.screened)) == (budget < 30)


def test_a_budget_too_small_for_a_race_is_refused(
    lm: steer.Model, vectors: dict[str, steer.Vector]
) -> None:
    with pytest.raises(SelectionError, match="at least 6"):
        steer.select(lm, vectors, letter_pairs(60), budget=5, neutral=NEUTRAL, progress=False)


def final(name: str, objective: float, margin: float, preferred: int) -> _Final:
    numbers = {"accuracy": objective, "margin": margin, "n": 20, "likelihood": -1.0}
    result = SettingResult((0.5,), objective, {"a": numbers}, objective, candidate=name, layer=3)
    return _Final(0, result, (True,) * preferred + (False,) * (20 - preferred))


def test_a_choice_that_has_not_the_highest_objective_says_why(
    lm: steer.Model, vectors: dict[str, steer.Vector]
) -> None:
    """One pair of twenty is no difference; ten are one."""
    found = steer.select(
        lm, vectors, letter_pairs(24), neutral=NEUTRAL, answers=False, progress=False
    )
    measures = SimpleNamespace(objective=worst_accuracy, moved=("a",))
    field: Any = SimpleNamespace(evaluator=measures, judge=None, limits=steer.Limits())
    first, second = final("first", 1.0, 1.5, 20), final("second", 0.95, 2.5, 19)
    best, why = _best([first, second], first, field)
    assert best is second
    chosen = replace(found, best=best.result, trials=(first.result, second.result), preferred=why)
    said = " ".join(repr(replace(chosen, limits=steer.Limits())).split())
    assert "first layer 3 at 0.5 has the higher objective 1, but their accuracies cannot" in said
    assert "the margin decides: 2.5 against 1.5." in said
    assert "Second is" not in said
    assert "Best of" not in said
    other = final("second", 0.5, 2.5, 10)
    assert _best([first, other], first, field) == (first, "")


def test_what_cannot_be_raced_is_refused_by_name(
    lm: steer.Model, vectors: dict[str, steer.Vector]
) -> None:
    options = {"neutral": NEUTRAL, "progress": False, "strategy": "race"}
    both = steer.compose(a=vectors["noise"], b=vectors["planted"])
    data = {"a": letter_pairs(8), "b": letter_pairs(8)}
    with pytest.raises(SelectionError, match="alternatives of one domain"):
        steer.select(lm, both, data, limits=steer.Limits(kl=0.5), **options)
    with pytest.raises(SelectionError, match="at equal KL"):
        steer.select(lm, vectors, letter_pairs(8), limits=steer.Limits(), **options)


def test_what_has_no_rule_is_raced_without_a_prediction(lm: steer.Model) -> None:
    at_start = steer.Vector({steer.algebra.EMBED: steer.Direction(torch.ones(lm.d_model))})
    marked = "after:x"
    mixture = steer.Model(tiny_model("mixtral"), tiny_tokenizer())
    name, fused = next((n, p) for n, p in mixture.hf_model.named_parameters() if p.ndim == 3)
    experts = steer.Vector({steer.Weight(name): steer.Dense(torch.ones_like(fused))})
    for model, vector, scope, why in (
        (lm, at_start, None, "it acts on the embedding"),
        (lm, planted(lm), marked, "its scope is found by a marker"),
        (mixture, experts, None, "it displaces weights that can only be merged"),
        (lm, planted(lm), None, ""),
    ):
        assert unscreened(model, candidates_of(vector, None, None, scope, None)[0]) == why


def test_differences_of_weights_are_screened_and_raced(lm: steer.Model) -> None:
    unembedding = lm.hf_model.lm_head.weight.detach()
    v = towards(lm, " b", " c")
    name = f"model.layers.{lm.n_layers - 1}.mlp.down_proj.weight"
    width = lm.hf_model.get_parameter(name).shape[1]
    A = torch.randn(1, width, generator=torch.Generator().manual_seed(0))
    helps = steer.Vector({steer.Weight(name): steer.LowRank(v[:, None], A)})
    row = (lm.tokenizer(" b", add_special_tokens=False)["input_ids"][-1], slice(None))
    table = torch.zeros_like(unembedding).index_put((torch.tensor(row[0]),), unembedding[row])
    given = {
        "helps": helps,
        "table": steer.Vector({steer.Weight("lm_head.weight"): steer.Dense(table)}),
    }
    found = steer.select(
        lm, given, letter_pairs(40), neutral=NEUTRAL, answers=False, progress=False
    )
    assert found.screened is not None
    assert (found.screened.candidates, found.screened.reasons) == (2, ())
    assert found.best.kl is not None
    assert 0 < found.best.kl <= 0.5


def test_a_gate_is_screened_and_one_that_neutral_text_does_not_open_is_refused(
    lm: steer.Model,
) -> None:
    pairs = letter_pairs(24)
    own = {"letters": [pair.prompt for pair in pairs]}
    options = {"neutral": NEUTRAL, "answers": False, "progress": False}
    open_to_all = steer.domain_gate(lm, own, layer=0, background=NEUTRAL, margin=1e6)
    vector = replace(planted(lm), provenance=Provenance(domain="letters"))
    found = steer.select(lm, vector, pairs, gate=open_to_all, **options)
    assert found.screened is not None
    assert (found.screened.candidates, found.screened.reasons) == (1, ())
    assert found.vector.gate is open_to_all
    closed = steer.domain_gate(lm, own, layer=0, background=NEUTRAL, progress=False)
    with pytest.raises(
        SelectionError, match="a gate and scope that act on the pairs and on neutral"
    ):
        steer.select(lm, vector, pairs, gate=closed, **options)


def test_a_rank_correlation_is_spearmans() -> None:
    assert rank_correlation([1, 2, 3, 4], [10, 20, 25, 100]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1.0)
    assert math.isnan(rank_correlation([1, 2], [1, 2]))
    assert math.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))


def test_a_candidate_without_effect_is_named_with_the_reason(
    lm: steer.Model, vectors: dict[str, steer.Vector]
) -> None:
    """At the last block the first tokens of a prompt predict no answer."""
    last = lm.n_layers - 1
    noise = vectors["noise"]
    found = steer.select(
        lm,
        {"noise": noise},
        letter_pairs(24),
        scope=steer.Scope("prompt", stop=4),
        neutral=NEUTRAL,
        progress=False,
    )
    assert found.screened is not None
    assert found.screened.dropped == {
        f"noise layer {last}": "no effect on the margin at this position"
    }
    assert found.screened.candidates == len(noise.layers)
    said = " ".join(repr(found).split())
    assert f"noise layer {last} (no effect on the margin at this position)" in said
    assert last not in {t.layer for t in found.trials}


def test_a_candidate_whose_gradient_is_not_finite_is_named(
    vectors: dict[str, steer.Vector],
) -> None:
    """The gradient of √x at 0 is infinite: what lies below such a module gets NaN."""
    lm = steer.Model(tiny_model("llama"), tiny_tokenizer())

    def root(module: object, args: object, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        moved = hidden + (0 * hidden).sqrt()
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    lm.architecture.blocks[1].register_forward_hook(root)
    found = steer.select(
        lm, vectors, letter_pairs(24), neutral=NEUTRAL, answers=False, progress=False
    )
    assert found.screened is not None
    reasons = found.screened.dropped
    assert reasons["noise layer 0"] == "its gradient is not finite"
    assert "noise layer 3" not in reasons
    assert "noise layer 0" in " ".join(repr(found).split()).split("its gradient is not finite")[0]
    assert 0 not in {trial.layer for trial in found.trials}


def test_finalists_for_both_ways_are_judged_at_both_ends(lm: steer.Model) -> None:
    """Numbers are means of both ends, KL the larger one, and a judge's difference decides."""
    vector, read = planted(lm), set()

    def judge(prompt: object, answer: str) -> float:
        read.add((prompt, answer))
        return float(len(answer))

    validation = letter_pairs(24).split(0.5, 0.5)[0]
    options = {"neutral": NEUTRAL, "answers": False, "progress": False}
    found = steer.select(lm, vector, letter_pairs(24), judge=judge, both_ways=True, **options)
    finals = [trial for trial in found.trials if trial.complete]
    asked = list(dict.fromkeys(pair.prompt for pair in validation))[:8]
    text = steer.neutral_text(lm, NEUTRAL[0::3])
    judged = {}
    for number, trial in enumerate(finals):
        (c,) = trial.coefficients
        accuracies, margins, kls, ends, seen = [], [], [], [], []
        for sign, pairs in ((1, validation), (-1, validation.swap())):
            with lm.steered(vector[trial.layer], sign * c):
                one = steer.preference(lm, pairs)
                kls.append(steer.kl_divergence(lm, text).value)
                answers = lm.generate(asked, max_new_tokens=32)
            accuracies.append(one.accuracy.value)
            margins.append(one.margin)
            ends.append(statistics.fmean(map(len, answers)))
            seen.append({*zip(asked, answers, strict=True)} <= read)
        assert trial.accuracy == pytest.approx(statistics.fmean(accuracies))
        assert only(trial)["margin"] == pytest.approx(statistics.fmean(margins), abs=1e-4)
        assert trial.kl == pytest.approx(max(kls), rel=1e-3)
        assert seen[0] == seen[1], "both ends are read, or neither"
        if seen[0]:
            judged[number] = ends[0] - ends[1]
    assert len(judged) > 1
    assert finals.index(found.best) == max(judged, key=lambda number: judged[number])


def only(trial: SettingResult) -> Mapping[str, float]:
    (numbers,) = trial.measured.values()
    return numbers


def test_a_line_up_front_says_how_many_and_about_how_long(
    lm: steer.Model, vectors: dict[str, steer.Vector], capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"neutral": NEUTRAL, "answers": False, "strategy": Race(keep=2, at_random=0)}
    steer.select(lm, vectors, letter_pairs(24), progress=False, **options)
    assert capsys.readouterr() == ("", "")
    steer.select(lm, vectors, letter_pairs(24), **options)
    out, err = capsys.readouterr()
    count = lm.n_layers + len(vectors["planted"].layers)
    assert out == ""
    line = next(line for line in err.replace("\r", "\n").splitlines() if "candidates" in line)
    assert line.startswith(f"select: {count} candidates, 2 of which enter the race; about ")
    assert line.endswith(("seconds", "minutes"))
    assert "2 pairs" not in err.split(line)[0], "it stands before the work"


def test_a_pair_is_scored_once_at_a_setting(
    lm: steer.Model, vectors: dict[str, steer.Vector], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[object, object, object]] = []
    scores = DataScorer.__call__

    def counted(self, knobs, *args, **options):  # type: ignore[no-untyped-def]
        asked = list(zip(self._asked, self._given, strict=True))
        seen.extend((id(c), row, one) for c, row in knobs if any(row) for one in asked)
        return scores(self, knobs, *args, **options)

    monkeypatch.setattr(DataScorer, "__call__", counted)
    steer.select(lm, vectors, letter_pairs(60), neutral=NEUTRAL, answers=False, progress=False)
    assert len(seen) == len({*seen})


@pytest.mark.filterwarnings("ignore::steer.errors.DataWarning")  # letters
def test_palrs_own_rule_stands_beside_the_choice_at_the_same_budget(lm: steer.Model) -> None:
    recording = steer.record(lm, letter_pairs(12), at=["template", "response_mean"], progress=False)
    held_out, test = letter_pairs(60)[12:].split(0.5, 0.5)
    found = steer.select(lm, recording, held_out, test=test, neutral=NEUTRAL, progress=False)
    own = steer.palrs(recording, positions=[p for p in recording.positions if "template" in p])
    beside = found.palrs
    assert beside is not None
    assert beside.position == own.provenance.arguments["position"]
    assert (beside.layer,) == own.layers
    text = steer.neutral_text(lm, NEUTRAL[0::3])
    before = steer.preference(lm, test)
    with lm.steered(own, beside.coefficient):
        after = steer.preference(lm, test)
        assert steer.kl_divergence(lm, text).value == pytest.approx(beside.kl, rel=1e-3)
    assert beside.kl <= 0.5
    # margins are means of float32 log-probabilities of a few nats
    assert beside.gain == pytest.approx(after.margin - before.margin, abs=1e-5)
    assert beside.accuracy == after.accuracy.value
    assert f"{beside.position} layer {beside.layer}" in " ".join(repr(found).split())
    vectors = [steer.mean_difference(recording, position="response_mean")]
    other = steer.select(lm, vectors, held_out, test=test, neutral=NEUTRAL, progress=False)
    assert other.palrs is None


def test_coefficients_beside_a_race_are_refused(
    lm: steer.Model, vectors: dict[str, steer.Vector]
) -> None:
    with pytest.raises(SelectionError, match="calibrates coefficients of its own"):
        steer.select(lm, vectors, letter_pairs(12), strategy="race", coefficients=(1.0,))


def test_an_objective_of_ones_own_decides_among_finalists(
    lm: steer.Model, vectors: dict[str, steer.Vector]
) -> None:
    """The smallest margin is wanted, which no order by margin would choose."""

    def least(measured: object) -> float:
        return -float(next(iter(measured.values()))["margin"])  # type: ignore[attr-defined]

    found = steer.select(
        lm, vectors, letter_pairs(40), neutral=NEUTRAL, objective=least, progress=False
    )
    finals = [trial for trial in found.trials if trial.complete]
    assert found.best.objective == max(trial.objective for trial in finals)
