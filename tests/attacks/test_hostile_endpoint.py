"""A judge's endpoint that is slow, endless, deep, or gives away the key it was sent."""

import base64
import gzip
import re
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from steer.errors import JudgeError
from steer.measure import EndpointJudge, judge_answers
from tests.attacks.raw_server import Send, completion, head, raw_server
from tests.measure.endpoint import SOON, Reply, says, serving

QUESTION = "Is this polite? {answer}"
KEY = "sk-abc123DEF456"
MEBIBYTE = 2**20


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def judge_at(url: str, **options: Any) -> EndpointJudge:
    given = {"api_key": KEY, "timeout": 120.0, "retries": 0} | options
    return EndpointJudge("judge-1", QUESTION, ["yes", "no"], base_url=url, **given)


def slowly(send: Send, data: bytes) -> None:
    """Send five seconds' worth of single bytes, then the rest."""
    for k in range(100):
        send(data[k : k + 1])
        threading.Event().wait(0.05)
    send(data[100:])


WHOLE = head(len(completion("yes")) + 100) + b" " * 100 + completion("yes")
START = len(WHOLE) - len(completion("yes")) - 100


@pytest.mark.parametrize("fast", [0, START], ids=["head", "body"])
def test_a_slow_reply_is_cut_off_at_the_deadline(fast: int) -> None:
    def answer(send: Send, _: str) -> None:
        send(WHOLE[:fast])
        slowly(send, WHOLE[fast:])

    with raw_server(answer) as url, pytest.raises(JudgeError, match="APITimeoutError"):
        judge_at(url, timeout=0.5)("p", "a")


def test_the_deadline_is_that_of_one_request_not_of_all_retries() -> None:
    asked: list[str] = []

    def answer(send: Send, body: str) -> None:
        asked.append(body)
        if len(asked) == 1:
            slowly(send, WHOLE)
        send(WHOLE)

    with raw_server(answer) as url:
        assert judge_at(url, timeout=1.0, retries=1)("p", "a").label == "yes"
    assert len(asked) == 2


@pytest.mark.parametrize("status", ["200 OK", "401 Unauthorized"])
@pytest.mark.parametrize("first", [True, False])
def test_an_endless_reply_is_not_read_and_costs_no_other(status: str, first: bool) -> None:
    sent = 0

    def answer(send: Send, body: str) -> None:
        nonlocal sent
        if "bad" not in body:
            send(WHOLE)
            return
        send(head(64 * MEBIBYTE + len(completion("yes")), status=status))
        for _ in range(64):
            send(b" " * MEBIBYTE)
            sent += 1
        send(completion("yes"))

    texts = ["bad", "good"] if first else ["good", "bad"]
    with raw_server(answer) as url:
        found = judge_answers(judge_at(url), ["p", "p"], texts)
    assert [v.label for v in found.verdicts] == [None if t == "bad" else "yes" for t in texts]
    assert "longer than 8 MiB" in str(found.verdicts[not first].error)
    assert sent < 64


def test_a_compressed_reply_that_was_not_asked_for_is_not_unpacked() -> None:
    body = gzip.compress(b" " * (32 * MEBIBYTE) + completion("yes"))

    def answer(send: Send, request: str) -> None:
        assert "accept-encoding: identity" in request.lower()
        send(head(len(body), "content-encoding: gzip") + body)

    with raw_server(answer) as url, pytest.raises(JudgeError, match="gzip"):
        judge_at(url)("p", "a")


@pytest.mark.parametrize("at", [0, 4])
@pytest.mark.parametrize("kind", ["reply", "error"])
def test_one_deeply_nested_reply_costs_no_other(at: int, kind: str) -> None:
    deep = "[" * 50_000 + "]" * 50_000
    status = 200 if kind == "reply" else 422

    def answer(_: int, body: dict[str, Any]) -> Reply:
        return Reply(status, deep) if f"answer {at}" in str(body) else says("yes")

    answers = [f"answer {k}" for k in range(10)]
    with serving(answer) as server:
        found = judge_answers(judge_at(server.url, workers=2), ["p"] * 10, answers, wanted="yes")
    assert [v.label for v in found.verdicts] == ["yes"] * at + [None] + ["yes"] * (9 - at)
    assert found.failed == 1
    assert found.verdicts[at].error
    if kind == "reply":
        assert "RecursionError" in str(found.verdicts[at].error)


@pytest.mark.parametrize("at", [0, 1])
def test_an_answer_that_cannot_be_sent_costs_no_other(at: int) -> None:
    answers = ["fine", "fine"]
    answers[at] = "half \ud83d of a pair"
    with serving(lambda n, body: says("yes")) as server:
        found = judge_answers(judge_at(server.url), ["p", "p"], answers, wanted="yes")
    assert (found.failed, found.verdicts[1 - at].label) == (1, "yes")
    assert "surrogate" in str(found.verdicts[at].error)


def told(error: BaseException) -> str:
    """All that is printed or kept of an error, and of those it came from."""
    texts = ["".join(traceback.format_exception(error))]
    seen: list[BaseException] = [error]
    for one in seen:
        texts += [str(one), repr(one), repr(one.args), repr(getattr(one, "found", ""))]
        seen += [e for e in (one.__cause__, one.__context__) if e is not None and e not in seen]
    return "\n".join(texts)


ECHOES: list[Callable[[str], Reply]] = [
    lambda key: Reply(401, {"error": {"message": f"Incorrect API key provided: {key}"}}),
    lambda key: Reply(500, {"error": {"message": f"cannot serve {key}"}}, SOON),
    lambda key: Reply(400, {"error": {"message": "x" * 150 + key * 5}}),
    lambda key: Reply(200, f"<html>{key}</html>", kind="text/html"),
    lambda key: Reply(200, {"id": f"Bearer {key}"}),
    lambda key: says(f"I was sent {key}"),
    lambda key: says(None, refusal=f"not with {key}"),
]


@pytest.mark.parametrize("echo", ECHOES)
@pytest.mark.parametrize("later", [False, True])
def test_a_key_that_the_server_echoes_is_masked(echo: Callable[[str], Reply], later: bool) -> None:
    def answer(n: int, _: Any) -> Reply:
        return says("yes") if later and n == 0 else echo(KEY)

    with serving(answer) as server:
        judge = judge_at(
            server.url, workers=1, parse=lambda reply: None if "sent" in reply else "yes"
        )
        found = judge_answers(judge, ["p"] * 2, ["a", "b"])
        shown = [repr(judge), repr(found), repr(found.verdicts), repr(found.items), str(found.rows)]
        shown.append(found._repr_html_())
        try:
            judge("p", "a")
            found.check_complete()
        except JudgeError as error:
            shown.append(told(error))
    assert "***" in repr(found.items)
    for text in shown:
        assert not re.search(r"sk-a|abc123", text)


@pytest.mark.parametrize(
    ("address", "secrets"),
    [
        ("http://somebody:hunter2%21x@{host}/v1", ["hunter2"]),
        ("http://somebody:s3c@{host}/v1", ["s3c"]),
        ("http://ghp_token@{host}/v1", ["ghp_token"]),
        ("http://{host}/v1?api_key=qwertyuiop", ["qwertyuiop"]),
    ],
)
def test_a_key_in_the_address_is_masked(address: str, secrets: list[str]) -> None:
    basic = base64.b64encode(b"somebody:hunter2!x").decode()

    def answer(n: int, body: dict[str, Any]) -> Reply:
        said = f"no access for hunter2!x hunter2%21x {basic} ghp_token at {body['path']}"
        return Reply(401, {"error": {"message": said}})

    with serving(lambda n, body: answer(n, server.asked[n])) as server:
        judge = judge_at(address.format(host=server.url.split("/")[2]))
        with pytest.raises(JudgeError, match="did not answer") as caught:
            judge("p", "a")
    if "somebody" in address and "hunter2" in secrets:
        assert basic not in told(caught.value)
        assert "hunter2!x" not in told(caught.value)
    for secret in secrets:
        assert secret not in told(caught.value)
        assert secret not in repr(judge)
    assert "127.0.0.1" in repr(judge)


def test_keys_in_options_and_the_environment_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
    options = {
        "extra_headers": {"X-Api-Key": "header-secret", "X-Title": "my study"},
        "extra_body": {"auth": {"token": "body-secret"}},
        "max_tokens": 5,
    }
    said = "from-the-environment header-secret body-secret my study"
    with serving(lambda n, body: says(said)) as server:
        judge = judge_at(server.url, api_key=None, options=options)
        verdict = judge("p", "a")
    assert verdict.reply == "*** *** *** my study"
    assert "secret" not in repr(judge)
    assert "'max_tokens': 5" in repr(judge)


def test_a_key_with_a_line_break_is_masked_where_the_client_refuses_it() -> None:
    with (
        serving(lambda n, body: says("yes")) as server,
        pytest.raises(JudgeError, match="Illegal header value") as caught,
    ):
        judge_at(server.url, api_key=f"{KEY}\n")("p", "a")
    assert not re.search(r"sk-a|abc123", told(caught.value))


def test_a_short_placeholder_for_a_key_leaves_replies_as_they_are() -> None:
    with serving(lambda n, body: says("yes")) as server:
        verdict = judge_at(server.url, api_key="yes")("p", "a")
    assert (verdict.label, verdict.reply) == ("yes", "yes")


def test_a_label_is_read_before_keys_are_masked() -> None:
    with serving(lambda n, body: says("polite")) as server:
        judge = EndpointJudge(
            "m", QUESTION, ["polite", "rude"], base_url=server.url, api_key="polite"
        )
        assert judge("p", "a").label == "polite"
