"""A steered server of a tiny llama, compiled, that prefills in chunks and caches prefixes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.server import Server, serving
from tests.engines.subjects import WIDTH, write_model, write_vectors

KEY = "a key of the tests"
SMALL = ("--max-num-batched-tokens", "128", "--max-num-seqs", "16")


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model("llama", tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vectors") / "tiny"
    return write_vectors(folder, width=WIDTH, layers=(1, 2), size=1.0)


@pytest.fixture(scope="session")
def server(
    llama: Path, vectors: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    config = {"vectors": str(vectors), "capacity": 4}
    with serving(llama, config, log, *SMALL, VLLM_PLUGINS="steer", STEER_ADMIN_KEY=KEY) as running:
        yield running
