"""A judge at an endpoint, against a real HTTP server that also misbehaves."""

import json
import re
import sys
import threading
import time

import pytest

from steer.errors import ArgumentError, JudgeError, MissingExtraError
from steer.measure import EndpointJudge, judge_answers
from tests.measure.endpoint import SOON, Reply, says, serving

QUESTION = "Question: {prompt}\nAnswer: {answer}\nIs the answer polite? {braces} stay."
LABELS = ("yes", "no")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """The server is on this machine, whatever the environment says."""
    monkeypatch.setenv("NO_PROXY", "*")
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def judge_at(url, **options):
    return EndpointJudge(
        "judge-1", QUESTION, LABELS, base_url=url, api_key="key", **{"timeout": 5.0} | options
    )


def test_a_verdict_goes_over_the_wire_and_comes_back():
    with serving(lambda n, body: says("Yes.")) as server:
        found = judge_at(server.url)("how are {answer} you", "fine {prompt}, thanks")
    assert (found.label, found.reply, found.error) == ("yes", "Yes.", None)
    (asked,) = server.asked
    assert (asked["path"], asked["model"], asked["temperature"]) == (
        "/v1/chat/completions",
        "judge-1",
        0.0,
    )
    rule, question = (message["content"] for message in asked["messages"])
    assert "yes, no" in rule
    assert question == (
        "Question: how are {answer} you\nAnswer: fine {prompt}, thanks\n"
        "Is the answer polite? {braces} stay."
    )
    assert server.keys == ["Bearer key"]


@pytest.mark.parametrize(
    ("content", "label"),
    [
        ("no", "no"),
        (' "No" ', "no"),
        ("**YES!**", "yes"),
        ("yes, no", None),
        ("yes because it thanks", None),
        ("", None),
    ],
)
def test_only_a_label_by_itself_is_a_label(content, label):
    with serving(lambda n, body: says(content)) as server:
        found = judge_answers(judge_at(server.url), ["p"], ["a"], wanted="yes")
    assert found.verdicts[0].label == label
    assert found.items[0]["reply"] == content
    assert found.accuracy.hits == (label == "yes")
    assert found.share(None).hits == (label is None)


def test_a_refusal_of_the_judge_is_undecided_and_kept():
    with serving(lambda n, body: says(None, refusal="I would rather not.")) as server:
        found = judge_at(server.url)("p", "a")
    assert (found.label, found.reply, found.error) == (None, "I would rather not.", None)


def test_answers_keep_their_order_and_few_are_under_way():
    together = threading.Barrier(3, timeout=5)

    def answer(n, body):
        if n:
            together.wait()  # three must be under way at the same time, or this breaks
            time.sleep(0.02)  # time for a fourth one, if there were one
        number = int(re.search(r"Answer: (\d+)", body["messages"][1]["content"])[1])
        return says(LABELS[number % 2])

    with serving(answer) as server:
        answers = [str(k) for k in range(10)]
        found = judge_answers(judge_at(server.url, workers=3), ["p"] * 10, answers, wanted="yes")
    assert [v.label for v in found.verdicts] == [LABELS[k % 2] for k in range(10)]
    assert server.most == 3
    assert found.accuracy.hits == 5


def test_a_rate_limit_is_waited_for():
    limits = [Reply(429, {"error": {"message": "slow down"}}, SOON)] * 2
    with serving(lambda n, body: limits[n] if n < 2 else says("no")) as server:
        assert judge_at(server.url, retries=2)("p", "a").label == "no"
        assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(429, {"error": {"message": "slow down"}}, SOON), "slow down"),
        (Reply(401, {"error": {"message": "wrong key"}}), "wrong key"),
        (Reply(404, {"error": {"message": "no such model"}}), "no such model"),
        (Reply(500, {"error": {"message": "broken"}}, SOON), "broken"),
        (Reply(200, "<html>a login page</html>", kind="text/html"), "login page"),
        (Reply(200, "{not json"), "Expecting property name"),
        (Reply(200, {"choices": []}), "no chat completion"),
        (Reply(200, {"choices": [{"index": 0}]}), "no chat completion"),
        (Reply(200, {"choices": {"a": 1}}), "no chat completion"),
        (Reply(200, {"choices": [{"message": {"content": [1]}}]}), "no chat completion"),
        (Reply(200, {"unexpected": True}), "no chat completion"),
        (Reply(200, "[]"), "no chat completion"),
    ],
)
def test_an_endpoint_that_never_answers_is_said_at_once(reply, said):
    with serving(lambda n, body: reply) as server:
        with pytest.raises(JudgeError, match="did not answer") as caught:
            judge_at(server.url, retries=1).many(["p"] * 5, list("abcde"))
        assert len(server.asked) == (2 if reply.status in (429, 500) else 1)
    assert said in caught.value.found
    assert server.url in caught.value.what
    assert "key" not in caught.value.what


def test_an_endpoint_that_is_away_costs_no_answer():
    with serving(lambda n, body: Reply(401, {"error": {"message": "wrong key"}})) as server:
        found = judge_answers(judge_at(server.url), ["p"] * 3, list("abc"), wanted="yes")
        assert (found.failed, found.answers, len(server.asked)) == (3, ("a", "b", "c"), 1)
        assert "not judged" in repr(found)
        with pytest.raises(JudgeError, match=r"3 of 3; the first: .*wrong key"):
            found.accuracy  # noqa: B018
        with pytest.raises(JudgeError, match="did not answer"):
            found.again(judge_at(server.url), give_up=True)  # that would count them as undecided
    with serving(lambda n, body: says("yes")) as server:
        assert found.again(judge_at(server.url)).accuracy.hits == 3


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_the_server_turns_down_blocks_nothing_else(first, status):
    refused = Reply(status, {"error": {"message": "content policy"}})
    texts = ["bad", "good"] if first else ["good", "bad"]
    with serving(lambda n, body: refused if "bad" in str(body) else says("yes")) as server:
        found = judge_answers(judge_at(server.url), ["p"] * 2, texts, wanted="yes")
        assert found.failed == 1
        assert found.again(judge_at(server.url)).failed == 1
        settled = found.again(judge_at(server.url), give_up=True)
    assert (settled.failed, settled.accuracy.hits, settled.share(None).hits) == (0, 1, 1)
    assert "content policy" in settled.verdicts[not first].reply


@pytest.mark.parametrize(
    ("content", "label"),
    [
        ("<think>\nIs it? no, well\n</think>\n\nyes", "yes"),
        ("It thanks. </think> No.", "no"),  # the template has opened it
        ("<think>yes", None),
        ([{"type": "text", "text": "ye"}, {"type": "text", "text": "s"}], "yes"),
        ([{"type": "thinking", "thinking": "no"}, {"type": "text", "text": "yes"}], "yes"),
    ],
)
def test_thinking_and_parts_around_a_label_are_read(content, label):
    with serving(lambda n, body: says(content)) as server:
        assert judge_at(server.url)("p", "a").label == label


def test_a_reply_can_be_parsed_otherwise():
    with serving(lambda n, body: says('{"verdict": "no"}')) as server:
        judge = judge_at(server.url, parse=lambda reply: json.loads(reply)["verdict"])
        assert judge("p", "a").label == "no"
        assert judge_at(server.url, parse=lambda reply: None)("p", "a").error is None
        failed = judge_at(server.url, parse=lambda reply: reply[99])("p", "a")
    assert (failed.reply, failed.error) == (
        '{"verdict": "no"}',
        "IndexError: string index out of range",
    )


def test_a_refused_connection_and_a_time_out_are_clear():
    with serving(lambda n, body: says("yes")) as server:
        url = server.url
    with pytest.raises(JudgeError, match="APIConnectionError"):
        judge_at(url, retries=0)("p", "a")
    gone = threading.Event()

    def never(n, body):
        gone.wait(5)
        return says("yes")

    with serving(never) as server:
        try:
            with pytest.raises(JudgeError, match="APITimeoutError"):
                judge_at(server.url, retries=0, timeout=0.05)("p", "a")
        finally:
            gone.set()


def test_what_fails_later_is_kept_and_can_be_asked_again():
    broken = Reply(400, {"error": {"message": "too long"}})
    with serving(lambda n, body: broken if "bad" in str(body) else says("yes")) as server:
        judge = judge_at(server.url, workers=1)
        found = judge_answers(judge, ["p"] * 3, ["good", "bad", "fine"], wanted="yes")
    assert found.failed == 1
    assert [item["label"] for item in found.items] == ["yes", None, "yes"]
    assert "too long" in found.items[1]["error"]
    for ask in (lambda: found.accuracy, lambda: found.value, lambda: found.share("yes")):
        with pytest.raises(JudgeError, match=r"1 of 3; the first: .*too long"):
            ask()
    assert "not judged" in repr(found)
    with serving(lambda n, body: says("no")) as server:
        whole = found.again(judge_at(server.url))
        assert len(server.asked) == 1
        assert "bad" in str(server.asked[0])
    assert [v.label for v in whole.verdicts] == ["yes", "no", "yes"]
    assert whole.accuracy.hits == 2
    assert whole.again(judge_at("http://127.0.0.1:1/v1")) is whole


def test_an_endpoint_that_goes_away_costs_no_earlier_verdict():
    gone = Reply(401, {"error": {"message": "no longer"}})
    with serving(lambda n, body: gone if "last" in str(body) else says("yes")) as server:
        found = judge_answers(judge_at(server.url, workers=1), ["p"] * 2, ["first", "last"])
    assert [v.label for v in found.verdicts] == ["yes", None]
    assert "no longer" in found.verdicts[1].error


def test_a_missing_key_and_a_missing_client_are_said(monkeypatch):
    keyless = EndpointJudge("m", QUESTION, LABELS, base_url="http://127.0.0.1:1/v1")
    with pytest.raises(JudgeError, match="did not answer") as caught:
        keyless("p", "a")
    assert "api_key" in str(caught.value.found)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtraError, match=r"residual-steer\[judge\]"):
        keyless("p", "a")


def test_the_key_is_not_printed():
    assert "secret" not in repr(EndpointJudge("m", QUESTION, LABELS, api_key="secret"))


@pytest.mark.parametrize(
    ("question", "labels", "options", "said"),
    [
        (QUESTION, ("yes",), {}, "cannot be asked"),
        (QUESTION, ("yes", "Yes!"), {}, "cannot be asked"),
        ("Is it polite?", LABELS, {}, "cannot be asked"),
        (QUESTION, LABELS, {"workers": 0}, "workers must be"),
        (QUESTION, LABELS, {"retries": -1}, "retries must be"),
        (QUESTION, LABELS, {"timeout": 0.0}, "timeout must be"),
        (QUESTION, LABELS, {"timeout": float("inf")}, "timeout must be"),
    ],
)
def test_questions_that_cannot_be_asked_are_refused(question, labels, options, said):
    with pytest.raises(ArgumentError, match=said):
        EndpointJudge("m", question, labels, **options)
