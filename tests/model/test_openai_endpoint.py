"""`transformers serve` with a model that is loaded and steered; the server of the how-to page."""

import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import uvicorn
from openai import BadRequestError, OpenAI
from transformers.cli.serving.utils import GenerationState

from steer import Composition, DomainGate, Model, Vector, compose
from steer.demo import load_model, vectors_path
from steer.demo.language import questions
from tests.repository.blocks import ROOT, page

SERVER: dict[str, Any] = {}  # the names of the page's server
exec(page(ROOT / "docs" / "howto" / "openai-endpoint.md").blocks[0].text, SERVER)
LIMITS = {"medical": 1.0, "legal": 0.75}
SETTINGS: list[dict[str, float]] = [
    {"medical": 0.75},
    {"legal": -0.75},
    {},
    {"medical": -1, "legal": 0.5},
]
ASKED = [*questions("medical", 2), *questions("legal", 2)]
LONGEST = 16


def knobs() -> Composition:
    files = {d: vectors_path() / f"{d}.safetensors" for d in LIMITS}
    return compose({d: Vector.load(path) for d, path in files.items()})


@contextmanager
def serving(app: Any) -> Iterator[OpenAI]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with OpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0
        ) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def answer(client: OpenAI, question: str, steer: object = None, *, stream: bool = False) -> str:
    found: Any = client.chat.completions.create(
        model="steered",
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=LONGEST,
        stream=stream,
        extra_body={} if steer is None else {"steer": steer},
    )
    if stream:
        return "".join(piece.choices[0].delta.content or "" for piece in found)
    return str(found.choices[0].message.content)


def expected(lm: Model, made: Composition, question: str, setting: Mapping[str, float]) -> str:
    with lm.steered(made, {**dict.fromkeys(LIMITS, 0.0), **setting}):
        return lm.generate(question, max_new_tokens=LONGEST)


def test_requests_at_once_have_their_own_coefficients() -> None:
    lm, made = load_model(), knobs()
    cases = [(q, s, stream) for q in ASKED for s in SETTINGS for stream in (False, True)]
    right = [expected(lm, made, question, setting) for question, setting, _ in cases]
    assert len({*right}) > len(ASKED)
    app = SERVER["endpoint"](load_model(), made, LIMITS)
    with serving(app) as client, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(answer, client, q, s, stream=stream) for q, s, stream in cases]
        assert [task.result() for task in asked] == right
        assert [model.id for model in client.models.list()] == ["steered"]


@pytest.mark.parametrize(
    "wrong", [{"legal": 0.8}, {"cooking": 0.1}, {"medical": "1"}, {"medical": None}, [1], "medical"]
)
def test_a_request_with_other_coefficients_is_refused(wrong: object) -> None:
    lm, made = load_model(), knobs()
    plain = lm.generate(ASKED[0], max_new_tokens=LONGEST)
    with serving(SERVER["endpoint"](lm, made, LIMITS)) as client:
        with pytest.raises(BadRequestError) as caught:
            answer(client, ASKED[0], wrong)
        assert "allowed are {'medical': 1.0, 'legal': 0.75}" in caught.value.response.text
        assert answer(client, ASKED[0]) == plain


@pytest.mark.parametrize("kind", ["one", "row", "scope", "gate"])
def test_one_setting_for_every_request_needs_the_model_alone(kind: str) -> None:
    lm, made = load_model(), knobs()
    setting: Any = {"medical": 0.75, "legal": 0.0}
    options: dict[str, Any] = {"scope": "prompt"} if kind == "scope" else {}
    if kind == "gate":
        centroids = torch.randn(2, lm.d_model, generator=torch.Generator().manual_seed(0))
        options["gate"] = DomainGate(tuple(LIMITS), centroids, 0, 1e6)
    steered = lm.steered(made, setting if kind == "one" else [setting], **options)
    with steered:
        right = lm.generate(ASKED[0], max_new_tokens=LONGEST)
    with steered:
        models, state = SERVER["Models"](lm, "steered"), GenerationState()
        names = ("ChatCompletionHandler", "CompletionHandler", "ResponseHandler")
        others = ("TranscriptionHandler", "SystemOneHandler")
        handlers = [SERVER[name](models, state) for name in (*names, *others)]
        app = SERVER["build_server"](models, *handlers, generation_state=state)
        with serving(app) as client:
            assert answer(client, ASKED[0]) == answer(client, ASKED[0], stream=True) == right
    assert lm.generate(ASKED[0], max_new_tokens=LONGEST) != right
