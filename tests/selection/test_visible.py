"""What can be seen of a setting in the text: changes, repetition, topic, and what a judge says."""

import pytest
import torch

import steer
from steer.errors import SelectionError, SteeringError
from steer.measure import repetition, trained_judge
from steer.selection._answers import AnswerPair, Visible, on_topic
from tests.letters import letter_pairs, planted
from tests.tiny import tiny_model, tiny_tokenizer

NEUTRAL = ("how are you", "what is it")
pytestmark = pytest.mark.filterwarnings("ignore::steer.errors.DataWarning")  # few letters


@pytest.fixture(scope="module")
def lm() -> steer.Model:
    return steer.Model(tiny_model("llama"), tiny_tokenizer())


def test_repetition_is_measured_before_and_after() -> None:
    answers = [AnswerPair("q", "one two three four five", "so so so so so so so so")]
    found = Visible(tuple(answers))
    before, after = found.repetition
    assert before.value == repetition([answers[0].before]).value == 0
    assert after.value == repetition([answers[0].after]).value == 0.8
    assert "repeated 4-grams 0% before and 80% after" in str(found)


def test_answers_that_begin_to_repeat_themselves_are_called_repetitive() -> None:
    fluent, loop = "one two three four five", "so so so so so so so so"
    assert Visible((AnswerPair("q", fluent, loop),)).repetitive
    assert not Visible((AnswerPair("q", fluent, fluent),)).repetitive
    assert not Visible((AnswerPair("q", loop, loop),)).repetitive, "it did so before"


def test_an_answer_is_on_topic_where_its_own_prompt_makes_it_likelier(lm: steer.Model) -> None:
    prompts = ["a b c", "x y z", "b c a", "y z x"]
    answers = ["a b", "z z", " ", "x"]
    knob = steer.compose(v=planted(lm))
    found = on_topic(lm, knob, prompts, answers)
    for k, answer in enumerate(answers):
        asked = [prompts[(k + step) % len(prompts)] for step in range(4)]
        if not answer.strip():
            assert not found[k]
            continue
        scores = [float(row.mean()) for row in lm.logprobs(asked, [answer] * 4)]
        assert found[k] == (scores[0] > max(scores[1:]))


def test_a_selection_reports_topic_and_a_judges_own_error(lm: steer.Model) -> None:
    pairs = letter_pairs(60)
    train, held_out, test = pairs.split()
    recording = steer.record(lm, train, at="response_mean", progress=False)
    judge = trained_judge(lm, recording, held_out)
    found = steer.select(
        lm,
        planted(lm),
        held_out,
        test=test,
        judge=judge,
        wanted="chosen",
        neutral=NEUTRAL,
        progress=False,
    )
    assert found.visible is not None
    assert found.visible.judge_error == judge.error
    assert found.visible.on_topic is not None
    assert found.visible.on_topic[0].n == len(found.visible.answers)
    said = str(found.visible)
    assert f"wrong on {judge.error.value:.0%} of held-out texts" in said
    assert "on topic" in said
    assert "on topic" in " ".join(repr(found).split())


def test_a_trained_judge_compares_with_the_means_of_its_recording(lm: steer.Model) -> None:
    train, held_out, _ = letter_pairs(60).split()
    recording = steer.record(lm, train, at="response_mean", progress=False)
    judge = trained_judge(lm, recording, held_out, layer=2, labels=("b", "c"))
    moments = recording.of("letters", "response_mean")
    up, down = moments.mean_chosen[2].double(), moments.mean_rejected[2].double()
    wrong = 0
    for pair in held_out:
        for answer, label in ((pair.chosen, "b"), (pair.rejected, "c")):
            text = lm.activations([pair.prompt], [answer], layers=[2])[0][0]
            start = len(text) - len(lm.logprobs([pair.prompt], [answer])[0])
            h = text[start:].double().mean(dim=0)
            nearer = "b" if float((h - (up + down) / 2) @ (up - down)) > 0 else "c"
            assert judge(pair.prompt, answer).label == nearer
            wrong += nearer != label
    assert (judge.error.hits, judge.error.n) == (wrong, 2 * len(held_out))
    assert judge("a b", " ").label is None
    assert judge.layer == 2
    assert trained_judge(lm, recording, held_out).layer == lm.n_layers // 2 - 1


def test_a_trained_judge_that_cannot_be_fitted_is_refused(lm: steer.Model) -> None:
    train, held_out, _ = letter_pairs(30).split()
    recording = steer.record(lm, train, at="response_mean", layers=[1], progress=False)
    for options in ({"layer": 3}, {"labels": ("a", "a")}):
        with pytest.raises(SelectionError, match="cannot be fitted and tested"):
            trained_judge(lm, recording, held_out, **options)  # type: ignore[arg-type]
    with pytest.raises(SelectionError, match="0 held-out pairs"):
        trained_judge(lm, recording, held_out[:0])
    judge = trained_judge(lm, recording, held_out)
    vector = steer.Vector.of({1: torch.ones(lm.d_model)})
    with lm.steered(vector), pytest.raises(SteeringError):
        judge("a", "b")
