"""Inspect's own provider for OpenAI-style servers carries a setting: the recipe of the docs."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import anyio
import pytest

from tests.harness.inspecting import INSPECTS_OWN

pytest.importorskip("inspect_ai")
pytestmark = INSPECTS_OWN

ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


@pytest.fixture
def server() -> Iterator[tuple[str, list[Any]]]:
    bodies: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(ANSWER).encode())

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/v1", bodies
        running.shutdown()
        thread.join()


def test_a_setting_reaches_the_server(server: tuple[str, list[Any]]) -> None:
    from inspect_ai.model import GenerateConfig, get_model

    address, bodies = server
    setting = json.dumps({"formal": 0.5})

    async def ask() -> str:
        async with get_model(
            "openai-api/vllm/m",
            base_url=address,
            api_key="none",
            memoize=False,
            config=GenerateConfig(extra_body={"vllm_xargs": {"steer": setting}}),
        ) as model:
            return (await model.generate("Is it safe?")).completion

    assert anyio.run(ask) == "yes"
    assert bodies[0]["vllm_xargs"] == {"steer": setting}
