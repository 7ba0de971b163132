"""A steered server over HTTP: right tokens for each request, and a 400 for what it cannot do."""

import json
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.engines.compare import differences, reference
from tests.engines.server import Server
from tests.engines.subjects import VOCAB, requests, write_requests

PROMPT = list(range(20, 60))


def test_each_of_100_requests_in_flight_gets_its_own_setting(
    server: Server, llama: Path, vectors: Path, tmp_path: Path
) -> None:
    asked = requests(100, vocab=VOCAB, tokens=12, seed=0)
    expected = reference(llama, vectors, write_requests(asked, tmp_path / "asked.json"))
    with ThreadPoolExecutor(32) as pool:
        answers = list(
            pool.map(lambda r: server.complete(r["prompt"], r["setting"], r["tokens"]), asked)
        )
    assert {status for status, _ in answers} == {200}
    found = [answer["choices"][0]["token_ids"] for _, answer in answers]
    wrong, ties = differences(found, expected)
    assert wrong == []
    assert ties <= 5
    steered = [k for k, request in enumerate(asked) if request["setting"]]
    plain = reference(
        llama,
        vectors,
        write_requests([{**asked[k], "setting": None} for k in steered], tmp_path / "plain.json"),
    )
    moved = sum(found[k] != p["tokens"] for k, p in zip(steered, plain, strict=True))
    assert moved > len(steered) / 2  # the settings do something


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"nope": 1.0}, "financial, legal, medical"),
        ('{"medical": NaN}', "not valid JSON"),
        ({"medical": 1e9}, "from -100 to 100"),
        ({"medical": True}, "from -100 to 100"),
        ({"medical": "1"}, "from -100 to 100"),
        ({"coefficients": {"medical": 1.0}, "scope": "somewhere"}, "unknown scope"),
        ({"coefficients": {"medical": 1.0}, "scope": "after:</think>"}, "marker"),
        ({"coefficients": {"medical": 1.0}, "gate": "medical"}, "gate"),
        ({"coefficients": {"medical": 1.0}, "operator": "ablate"}, "operator"),
        ("{", "not valid JSON"),
        ([1, 2], "list"),
        ("3", "int"),
    ],
)
def test_a_setting_that_cannot_be_done_is_a_400_that_says_why(
    server: Server, setting: object, told: str
) -> None:
    status, answer = server.complete(PROMPT, setting)
    assert status == 400
    assert told in json.dumps(answer)


def test_a_nested_document_is_refused_by_the_server_itself(server: Server) -> None:
    body = {"model": "m", "prompt": PROMPT, "vllm_xargs": {"steer": {"medical": 1.0}}}
    assert server.ask("/v1/completions", body)[0] == 400


def test_beam_search_is_refused_when_it_would_lose_the_setting(server: Server) -> None:
    status, answer = server.complete(PROMPT, {"medical": 1.0}, use_beam_search=True, n=2)
    assert status == 400
    assert "beam search" in json.dumps(answer)
    assert server.complete(PROMPT, use_beam_search=True, n=2)[0] == 200


def test_prefix_blocks_are_shared_by_equal_settings_alone(server: Server) -> None:
    prompt = [10 + (37 * i) % 400 for i in range(200)]
    asked = [None, {"medical": 1.0}, {"medical": -1.0}, None, {"medical": 1.0}]
    found = [server.complete(prompt, setting)[1]["choices"][0]["token_ids"] for setting in asked]
    assert found[0] == found[3]
    assert found[1] == found[4]
    assert len({tuple(tokens) for tokens in found}) == 3


def test_a_client_cannot_forge_the_salt_of_a_setting(server: Server) -> None:
    """What a client can know of a setting is not enough to put other blocks in its place."""
    prompt = [10 + (43 * i) % 400 for i in range(200)]
    medical = server.ask("/v1/steer")[1]["vectors"]["medical"]["sha256"]
    content = [(medical, 1.25, 0, 2**62)]
    for known in (content, (None, content)):
        server.complete(prompt, cache_salt=sha256(repr(known).encode()).hexdigest())
    setting = {"medical": 1.25}
    found = server.complete(prompt, setting)[1]["choices"][0]["token_ids"]
    fresh = server.complete(prompt, setting, cache_salt="fresh")[1]["choices"][0]["token_ids"]
    assert found == fresh


def test_a_response_that_becomes_a_prompt_is_not_taken_for_steered(server: Server) -> None:
    """Scope `response` steers other positions where the prompt is longer."""
    prompt = [10 + (41 * i) % 400 for i in range(60)]
    setting = {"coefficients": {"medical": 2.0}, "scope": "response"}
    first = server.complete(prompt, setting, 100)[1]["choices"][0]["token_ids"]
    longer = prompt + first[:80]
    again = server.complete(longer, setting)[1]["choices"][0]["token_ids"]
    fresh = server.complete(longer, setting, cache_salt="fresh")[1]["choices"][0]["token_ids"]
    assert again == fresh


def test_chat_and_streaming_are_steered(server: Server) -> None:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "What is the usual dose of this drug?"}],
        "max_tokens": 12,
        "temperature": 0,
        "ignore_eos": True,
    }
    knob = {"vllm_xargs": {"steer": json.dumps({"medical": 2.0})}}
    _, plain = server.ask("/v1/chat/completions", body)
    _, steered = server.ask("/v1/chat/completions", {**body, **knob})
    text = steered["choices"][0]["message"]["content"]
    assert text != plain["choices"][0]["message"]["content"]
    _, events = server.ask("/v1/chat/completions", {**body, **knob, "stream": True})
    lines = [line[6:] for line in events.splitlines() if line.startswith("data: {")]
    deltas = [json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines]
    assert "".join(deltas) == text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"input": "What is the usual dose?", "max_output_tokens": 12}),
        (
            "/v1/messages",
            {
                "messages": [{"role": "user", "content": "What is the usual dose?"}],
                "max_tokens": 12,
            },
        ),
    ],
)
def test_other_interfaces_carry_the_setting(
    server: Server, path: str, body: dict[str, object]
) -> None:
    asked = {"model": "m", "temperature": 0, **body}
    status, plain = server.ask(path, asked)
    assert status == 200, plain
    knob = {"vllm_xargs": {"steer": json.dumps({"medical": 2.0})}}
    _, steered = server.ask(path, {**asked, **knob})
    _, again = server.ask(path, {**asked, **knob})
    assert _text(plain) != _text(steered) == _text(again)
    bad = {"vllm_xargs": {"steer": json.dumps({"nope": 1.0})}}
    assert server.ask(path, {**asked, **bad})[0] == 400


def _text(answer: dict[str, Any]) -> str:
    """Return the text in an answer of either interface."""
    parts = answer["content"] if "content" in answer else answer["output"][-1]["content"]
    return "".join(part["text"] for part in parts)


def test_samples_of_one_request_are_all_steered(server: Server) -> None:
    _, answer = server.complete(PROMPT, {"medical": 1.5}, n=3, temperature=1e-6)
    _, one = server.complete(PROMPT, {"medical": 1.5})
    tokens = [choice["token_ids"] for choice in answer["choices"]]
    assert tokens == [one["choices"][0]["token_ids"]] * 3
