"""A real vLLM server on the loopback, started and stopped by a test."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "OMP_NUM_THREADS": "1",
}
_PATIENCE = 600.0  # seconds until a server must answer


class Server:
    """A running server: JSON in, status and JSON out."""

    def __init__(self, port: int, process: "subprocess.Popen[bytes]") -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.process = process

    def ask(
        self, path: str, body: Any = None, *, method: str | None = None, key: str | None = None
    ) -> tuple[int, Any]:
        """Return the status and the parsed answer of one request."""
        data = (
            None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        )
        headers = {"Content-Type": "application/json"}
        headers |= {"X-Steer-Key": key} if key else {}
        request = urllib.request.Request(self.address + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return answer.status, _parsed(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _parsed(error.read())

    def complete(
        self, prompt: Any, setting: Any = None, tokens: int = 8, **more: Any
    ) -> tuple[int, Any]:
        """Return the status and the answer of a greedy completion with a setting."""
        return self.ask("/v1/completions", _body(prompt, setting, tokens, more))

    @contextmanager
    def stream(
        self, prompt: Any, setting: Any, tokens: int, **more: Any
    ) -> Iterator[Iterator[list[int]]]:
        """Yield the tokens of a greedy completion as they come; leaving early aborts it."""
        body = _body(prompt, setting, tokens, {"stream": True, **more})
        data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.address}/v1/completions", data, headers)
        with urllib.request.urlopen(request, timeout=300) as answer:
            lines = (line[6:] for line in answer if line.startswith(b"data: {"))
            yield (json.loads(line)["choices"][0]["token_ids"] for line in lines)


def _body(prompt: Any, setting: Any, tokens: int, more: dict[str, Any]) -> dict[str, Any]:
    body = {"model": "m", "prompt": prompt, "max_tokens": tokens, "temperature": 0}
    body |= {"ignore_eos": True, "return_token_ids": True, **more}
    if setting is not None:
        text = setting if isinstance(setting, str) else json.dumps(setting)
        body["vllm_xargs"] = {"steer": text}
    return body


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors="replace")


@contextmanager
def serving(
    model: Path, steer: dict[str, Any] | None, log: Path, *more: str, **env: str
) -> Iterator[Server]:
    """Serve a model as `m`, with the `steer` part of the configuration if one is given."""
    port = _free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", "m", "--dtype", "float32", "--port", str(port)]
    command += ["--host", "127.0.0.1", "--max-model-len", "300", *more]
    if steer is not None:
        command += ["--additional-config", json.dumps({"steer": steer})]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ENVIRONMENT, **env},
            start_new_session=True,
        )
        server = Server(port, process)
        try:
            _wait(server, log)
            yield server
        finally:
            _stop(process)


def _wait(server: Server, log: Path) -> None:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        if server.process.poll() is not None:
            break
        try:
            if server.ask("/health")[0] == 200:
                return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"the server did not start:\n{log.read_text(errors='replace')[-6000:]}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End a server with all its processes."""
    for sent, patience in ((signal.SIGTERM, 30), (signal.SIGKILL, 30)):
        try:
            os.killpg(process.pid, sent)
            process.wait(patience)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
