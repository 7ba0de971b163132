"""What takes long: `make engines-full`."""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from steer.demo import smollm2
from tests.engines.compare import differences, reference
from tests.engines.server import Server
from tests.engines.subjects import VOCAB, requests, write_requests, write_vectors
from tests.engines.test_offline import EVERYTHING, answers, engine, shut_down

pytestmark = pytest.mark.skipif(not EVERYTHING, reason="`make engines-full` runs it")
SMOLLM2 = {"width": 576, "layers": (8, 14, 20), "size": 0.5}
WITHIN = 1e-5  # nats, between two servers that compute the same


def test_the_real_model_equals_the_hook_engine(tmp_path: Path) -> None:
    model = smollm2.model_folder()
    vectors = write_vectors(tmp_path / "vectors", **SMOLLM2)  # type: ignore[arg-type]
    asked = requests(100, vocab=40_000, tokens=12, seed=4)
    expected = reference(model, vectors, write_requests(asked, tmp_path / "asked.json"))
    llm = engine(model, {"vectors": str(vectors)})
    found = [list(out.token_ids) for out in answers(llm, asked)]
    shut_down(llm)
    wrong, ties = differences(found, expected)
    assert wrong == [], f"and {ties} near ties"


def test_unsteered_requests_equal_a_server_without_the_plugin(llama: Path, vectors: Path) -> None:
    asked = requests(100, vocab=VOCAB, tokens=12, seed=5)
    plain = [k for k, request in enumerate(asked) if request["setting"] is None]
    found = []
    for steer in ({"vectors": str(vectors)}, None):
        llm = engine(llama, steer, enforce_eager=False)
        out = answers(llm, asked, steered=steer is not None)
        shut_down(llm)
        found.append([out[k] for k in plain])
    for with_plugin, without in zip(*found, strict=True):
        assert with_plugin.token_ids == without.token_ids
        for a, b in zip(with_plugin.logprobs, without.logprobs, strict=True):
            pairs = [(a[token].logprob, b[token].logprob) for token in a]
            assert all(abs(x - y) <= WITHIN for x, y in pairs)


def test_two_processes_for_one_model(
    llama: Path, vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
    asked = requests(50, vocab=VOCAB, tokens=12, seed=6)
    expected = reference(llama, vectors, write_requests(asked, tmp_path / "asked.json"))
    llm = engine(llama, {"vectors": str(vectors)}, tensor_parallel_size=2)
    found = [list(out.token_ids) for out in answers(llm, asked)]
    shut_down(llm)
    wrong, ties = differences(found, expected)
    assert wrong == [], f"and {ties} near ties"


def test_ten_thousand_requests_with_aborts_and_malformed_bodies(
    server: Server, llama: Path, vectors: Path, tmp_path: Path
) -> None:
    asked = requests(60, vocab=VOCAB, tokens=12, seed=7)
    expected = reference(llama, vectors, write_requests(asked, tmp_path / "asked.json"))
    memory = []
    for part in range(10):
        with ThreadPoolExecutor(12) as pool:
            seeds = range(1000 * part, 1000 * (part + 1))
            wrong = [w for w in pool.map(lambda s: _one(server, asked, expected, s), seeds) if w]
        assert wrong == []
        memory.append(_resident(server))
    assert server.ask("/health")[0] == 200
    assert memory[-1] <= 1.05 * memory[2], memory  # flat once everything is warm


def _one(server: Server, asked: list[Any], expected: list[Any], seed: int) -> str:
    """Send one request, good, aborted or malformed, and return what is wrong with its answer."""
    draw = random.Random(seed)
    k = draw.randrange(len(asked))
    request, kind = asked[k], draw.random()
    if kind < 0.1:
        with server.stream(request["prompt"], request["setting"], 100) as tokens:
            next(tokens)
        return ""
    if kind < 0.2:
        bad = draw.choice(['{"nope": 1}', "{", '{"medical": NaN}', "[]", '{"medical": 1e300}'])
        status, answer = server.complete(request["prompt"], bad)
        return "" if status == 400 else f"{bad}: {status} {answer}"
    if kind < 0.25:
        status, answer = server.ask("/v1/completions", draw.randbytes(50))
        return "" if 400 <= status < 500 else f"bytes: {status} {answer}"
    status, answer = server.complete(request["prompt"], request["setting"], request["tokens"])
    if status != 200:
        return f"{k}: {status} {json.dumps(answer)[:200]}"
    differ, _ = differences([answer["choices"][0]["token_ids"]], [expected[k]])
    return f"{k}: another's tokens" if differ else ""


def _resident(server: Server) -> int:
    """Return the bytes that a server's processes hold."""
    main = psutil.Process(server.process.pid)
    return sum(p.memory_info().rss for p in (main, *main.children(recursive=True)))
