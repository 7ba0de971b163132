"""Judges by rule and by local model, and what is made of their verdicts."""

import enum
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

import steer
from steer.demo.judge import level_judge
from steer.demo.language import answer, topics
from steer.errors import ArgumentError, JudgeError, SelectionError, SteeringError
from steer.measure import ModelJudge, RuleJudge, Share, Verdict, judge_answers, judged_accuracy
from tests.tiny import tiny_model, tiny_tokenizer

QUESTION = "Asked {prompt}, is {answer} a good {thing}?"


@pytest.fixture(scope="module")
def lm():
    return steer.Model(tiny_model("llama"), tiny_tokenizer())


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("I CANNOT say", "refuses"),
        ("take 5 mg", "doses"),
        ("I cannot say 5 mg", None),
        ("water", "other"),
        ("", "other"),
    ],
)
def test_a_rule_never_guesses(answer, label):
    judge = RuleJudge({"refuses": ["cannot", "unable"], "doses": r"\d+ mg"}, otherwise="other")
    found = judge("p", answer)
    assert found.label == label
    assert judge_answers(judge, ["p"], [answer], wanted="refuses").accuracy == Share(
        label == "refuses", 1
    )


def test_words_are_whole_and_literal():
    judge = RuleJudge.of_words({"price": ["1.5", "cost"]})
    labels = [judge("p", text).label for text in ("it is 1.5 now", "115", "costly", "the Cost?")]
    assert labels == ["price", None, None, "price"]


@pytest.mark.parametrize("patterns", [{}, {"a": []}, {"a": "("}, {"a": ""}])
def test_rules_that_cannot_be_used_are_refused(patterns):
    if patterns == {"a": ""}:
        assert RuleJudge(patterns)("p", "x").label == "a"  # the empty pattern is everywhere
        return
    with pytest.raises(ArgumentError, match="without usable patterns"):
        RuleJudge(patterns)


def test_a_function_is_a_judge_and_every_item_is_kept():
    answers = ["yes", "no", "", "yes"]
    found = judge_answers(lambda prompt, text: text or None, list("abcd"), answers, wanted="yes")
    assert (found.accuracy, found.share("no"), found.share(None)) == (
        Share(2, 4),
        Share(1, 4),
        Share(1, 4),
    )
    assert (found.value, found.interval) == (0.5, Share(2, 4).interval)
    assert found.items[2] == {
        "prompt": "c",
        "answer": "",
        "label": None,
        "wanted": "yes",
        "reply": None,
        "error": None,
    }
    assert [(row["measure"], row["value"]) for row in found.rows] == [
        ("judged accuracy", 0.5),
        ("judged yes", 0.5),
        ("judged no", 0.25),
        ("judged undecided", 0.25),
    ]


def test_each_answer_may_be_wanted_otherwise():
    found = judge_answers(lambda p, text: text, ["p"] * 3, list("xyz"), wanted=list("xyy"))
    assert found.hits == (True, True, False)


def test_scores_are_averaged_and_undecided_ones_left_out():
    found = judge_answers(
        lambda p, text: float(len(text)) or None, ["p"] * 4, ["ab", "", "abcd", "abc"]
    )
    assert found.value == 3.0
    assert found.score.n == 3
    assert found.rows[0]["measure"] == "judged score"
    with pytest.raises(SelectionError, match="without a wanted label"):
        found.accuracy  # noqa: B018


@pytest.mark.parametrize(
    ("judge", "wanted"),
    [
        (lambda p, a: a == "x", None),
        (lambda p, a: ["x"], None),
        (lambda p, a: 1.0 if a == "x" else "no", None),
        (lambda p, a: 1.0, "yes"),
    ],
)
def test_judges_that_cannot_be_counted_are_refused(judge, wanted):
    with pytest.raises(SelectionError):
        judge_answers(judge, ["p", "p"], ["x", "y"], wanted=wanted)


class Tone(enum.StrEnum):
    """Labels as people write them."""

    KIND = "kind"


def test_labels_and_scores_may_be_of_a_kind_of_text_or_number():
    found = judge_answers(lambda p, a: Tone.KIND, ["p"], ["a"], wanted="kind")
    assert (found.accuracy.hits, found.labels) == (1, ("kind",))
    for score in (np.float64(0.5), np.float32(0.5), Fraction(1, 2)):
        assert judge_answers(lambda p, a, score=score: score, ["p"], ["a"]).value == 0.5
    with pytest.raises(SelectionError, match=r"bool(.|\n)*1.0 and 0.0"):
        judge_answers(lambda p, a: True, ["p"], ["a"])


def test_a_judge_that_raises_costs_no_answer(lm):
    def judge(prompt, text):
        if prompt == "who":
            raise ZeroDivisionError("none of them")
        return "fine"

    found = judged_accuracy(lm, ["how", "who"], judge, wanted="fine", max_new_tokens=2)
    assert (found.failed, len(found.answers)) == (1, 2)
    assert "ZeroDivisionError: none of them" in repr(found)
    with pytest.raises(JudgeError, match=r"1 of 2; the first: ZeroDivisionError: none of them"):
        found.accuracy  # noqa: B018
    whole = found.again(lambda p, a: "bad")
    assert (whole.accuracy, whole.answers) == (Share(1, 2), found.answers)
    assert found.again(judge, give_up=True).accuracy == Share(1, 2)


def test_a_judge_of_many_that_raises_costs_no_answer():
    class Many:
        def __call__(self, prompt, text):
            return "fine"

        def many(self, prompts, answers):
            return [self(p, a)[99] for p, a in zip(prompts, answers, strict=True)]

    found = judge_answers(Many(), ["p"], ["a"])
    assert (found.failed, found.answers) == (1, ("a",))
    with pytest.raises(JudgeError, match="IndexError"):
        found.share("fine")


@pytest.mark.parametrize("wanted", ["fine", None])
def test_labels_and_scores_are_not_mixed_by_judging_again(wanted):
    found = judge_answers(
        lambda p, a: Verdict(None, error="away") if a == "x" else "fine",
        ["p"] * 2,
        ["x", "y"],
        wanted=wanted,
    )
    with pytest.raises(SelectionError, match="cannot be counted"):
        found.again(lambda p, a: 1.0)


def test_a_label_that_the_judge_cannot_give_is_not_wanted():
    judge = RuleJudge({"refuses": "cannot"})
    with pytest.raises(ArgumentError, match=r"unknown: \['agrees'\]"):
        judge_answers(judge, ["p"], ["I cannot say"], wanted="agrees")


@pytest.mark.parametrize(
    ("prompts", "answers", "wanted", "said"),
    [
        ([], [], "a", "nothing to judge"),
        (["p"], ["x", "y"], "a", "nothing to judge"),
        (["p"], ["x"], [], "0 labels for 1 answers"),
    ],
)
def test_numbers_must_agree(prompts, answers, wanted, said):
    with pytest.raises(ArgumentError, match=said):
        judge_answers(lambda p, a: "a", prompts, answers, wanted=wanted)


def test_a_model_judges_by_log_probabilities(lm):
    judge = ModelJudge(lm, QUESTION, {"good": "yes", "bad": "no it is not"}, batch_size=2)
    prompts, answers = ["how", "why {answer}", "who"], ["the sea", "a boat", "water"]
    found = judge_answers(judge, prompts, answers)
    for prompt, text, verdict in zip(prompts, answers, found.verdicts, strict=True):
        question = f"Asked {prompt}, is {text} a good {{thing}}?"
        scores = [
            float(lm.logprobs([question], [reply])[0].double().sum())
            for reply in ("yes", "no it is not")
        ]
        assert verdict.label == ("good", "bad")[scores[1] > scores[0]]
        told = [float(part.split(": ")[1]) for part in verdict.reply.split(", ")]
        assert told == pytest.approx(scores, abs=1e-3)


def test_mean_and_sum_differ_for_replies_of_unequal_length(lm):
    replies = ["no", "no no no no no no"]
    short, fair = (ModelJudge(lm, QUESTION, replies, reduce=r)("p", "a") for r in ("sum", "mean"))
    per_token = lm.logprobs(["Asked p, is a a good {thing}?"] * 2, replies)
    assert short.label == "no"
    assert fair.label == replies[int(per_token[1].mean() > per_token[0].mean())]


def test_a_judge_that_is_steered_itself_refuses(lm):
    judge = ModelJudge(lm, QUESTION, ["yes", "no"])
    with (
        lm.steered(steer.Vector.of({1: torch.ones(32)})),
        pytest.raises(SteeringError, match="is being steered"),
    ):
        judge("p", "a")
    assert judge("p", "a").label in ("yes", "no")


@pytest.mark.parametrize(
    ("question", "replies"),
    [("no place", ["a", "b"]), (QUESTION, ["a"]), (QUESTION, {"x": "a", "y": "a"})],
)
def test_questions_that_cannot_be_asked_are_refused(lm, question, replies):
    with pytest.raises(ArgumentError, match="cannot be asked"):
        ModelJudge(lm, question, replies)


def test_generated_answers_are_judged_steered(lm):
    vector = steer.Vector.of({3: 40 * lm.architecture.unembedding.weight[70].detach()})

    def judge(prompt, text):
        return text[:1] or None

    with lm.steered(vector):
        texts = lm.generate(["how", "who"], max_new_tokens=3)
        found = judged_accuracy(lm, ["how", "who"], judge, wanted=texts[0][:1], max_new_tokens=3)
    assert found.answers == tuple(texts)
    assert found.accuracy.hits == 2
    assert found.answers != tuple(lm.generate(["how", "who"], max_new_tokens=3))


def test_the_judge_of_the_demo_is_a_judge():
    import random

    rng = random.Random(0)
    topic = topics("legal", "test")[0]
    texts = [answer("legal", level, topic, rng) for level in ("expert", "avoidance")]
    texts += [answer("medical", "expert", topics("medical", "test")[0], rng), "hm"]
    found = judge_answers(level_judge("legal"), ["p"] * 4, texts, wanted="expert")
    assert [v.label for v in found.verdicts] == ["expert", "avoidance", None, None]


def test_a_verdict_may_hold_a_reply():
    found = judge_answers(lambda p, a: Verdict("x", reply="so it seems"), ["p"], ["a"])
    assert found.items[0]["reply"] == "so it seems"
    assert not math.isnan(found.share("x").value)


def test_messages_may_be_mappings_wherever_answers_are_judged(lm):
    judge = ModelJudge(lm, "{prompt} {answer}", ["yes", "no it is not"])
    plain = [{"role": "user", "content": "Is it safe?"}]
    messages = (steer.Message("user", "Is it safe?"),)
    assert judge(plain, "a boat") == judge(messages, "a boat")
    found = judge_answers(lambda prompt, _: prompt[0].content, [plain], ["a boat"])
    assert (found.prompts, found.verdicts[0].label) == ((messages,), "Is it safe?")
