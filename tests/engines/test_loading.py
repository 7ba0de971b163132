"""Vectors loaded and unloaded while the server runs, with an admin key."""

from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from steer import Vector
from tests.engines.conftest import KEY
from tests.engines.server import Server
from tests.engines.subjects import WIDTH

PROMPT = list(range(30, 90))
LONG = 220  # tokens, which take far longer than loading a vector


def _vector(path: Path, seed: int, **sizes: float) -> bytes:
    generator = torch.Generator().manual_seed(seed)
    direction = 2 * torch.randn(int(sizes.get("width", WIDTH)), generator=generator).double()
    direction = direction * sizes.get("size", 1.0)
    Vector.of({int(sizes.get("layer", 2)): direction}).save(path)
    return path.read_bytes()


def _tokens(server: Server, setting: object, **more: object) -> list[int]:
    status, answer = server.complete(PROMPT, setting, **more)
    assert status == 200, answer
    return list(answer["choices"][0]["token_ids"])


def test_a_vector_is_loaded_replaced_and_unloaded(server: Server, tmp_path: Path) -> None:
    first, second = (_vector(tmp_path / f"{k}.safetensors", k) for k in (1, 2))
    assert server.complete(PROMPT, {"new": 1.0})[0] == 400
    status, listed = server.ask("/v1/steer/new", first, method="PUT", key=KEY)
    assert (status, set(listed["vectors"])) == (200, {"financial", "legal", "medical", "new"})
    one, two = _tokens(server, {"new": 1.0}), _tokens(server, {"new": 2.0})
    assert one != _tokens(server, None)
    status, answer = server.ask("/v1/steer/new", second, method="PUT", key=KEY)
    assert (status, "capacity" in answer["error"]["message"]) == (409, True)  # all four are taken
    assert server.ask("/v1/steer/new", method="DELETE", key=KEY)[0] == 200
    assert server.complete(PROMPT, {"new": 1.0})[0] == 400
    assert server.ask("/v1/steer/new", second, method="PUT", key=KEY)[0] == 200
    other = _tokens(server, {"new": 1.0})
    assert other not in (one, two)  # no block of the old vector's prefix was used again
    assert other == _tokens(server, {"new": 1.0}, cache_salt="fresh")
    assert server.ask("/v1/steer/new", method="DELETE", key=KEY)[0] == 200
    assert server.ask("/v1/steer/new", method="DELETE", key=KEY)[0] == 404


def test_requests_in_flight_keep_the_vector_that_they_began_with(
    server: Server, tmp_path: Path
) -> None:
    first, second = (_vector(tmp_path / f"{k}.safetensors", k) for k in (3, 4))
    assert server.ask("/v1/steer/new", first, method="PUT", key=KEY)[0] == 200
    alone = _tokens(server, {"new": 1.0}, tokens=LONG)
    with ExitStack() as stack:
        streams = [
            stack.enter_context(server.stream(PROMPT, {"new": 1.0}, LONG, cache_salt=str(k)))
            for k in range(4)
        ]
        begun = [next(stream) for stream in streams]  # each is running now
        assert server.ask("/v1/steer/new", method="DELETE", key=KEY)[0] == 200
        assert server.complete(PROMPT, {"new": 1.0})[0] == 400
        status, _ = server.ask("/v1/steer/new", second, method="PUT", key=KEY)
        assert status in (409, 200)  # 200 if all have ended by now
        found = [
            one + [t for part in rest for t in part]
            for one, rest in zip(begun, streams, strict=True)
        ]
    assert found == [alone] * 4
    if status == 409:  # their slot is free now
        assert server.ask("/v1/steer/new", second, method="PUT", key=KEY)[0] == 200
    assert _tokens(server, {"new": 1.0}, tokens=LONG) != alone
    server.ask("/v1/steer/new", method="DELETE", key=KEY)


def test_anyone_may_list_and_nobody_else_may_change(server: Server, tmp_path: Path) -> None:
    status, listed = server.ask("/v1/steer")
    assert (status, listed["capacity"], listed["layers"]) == (200, 4, [1, 2])
    data = _vector(tmp_path / "v.safetensors", 5)
    for key in (None, "wrong"):
        assert server.ask("/v1/steer/new", data, method="PUT", key=key)[0] == 401
        assert server.ask("/v1/steer/medical", method="DELETE", key=key)[0] == 401
    assert server.ask("/v1/steer")[1] == listed


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "safetensors"),
        (b"\x80\x04pickle", "safetensors"),
        ({"width": 64}, "width 64"),
        ({"layer": 3}, "layers"),
        ({"size": 1e300}, "overflow"),
        ({"size": 1e37}, "overflow"),
    ],
)
def test_a_file_that_cannot_be_served_is_refused(
    server: Server, tmp_path: Path, data: bytes | dict[str, float], told: str
) -> None:
    sent = data if isinstance(data, bytes) else _vector(tmp_path / "v.safetensors", 6, **data)
    status, answer = server.ask("/v1/steer/new", sent, method="PUT", key=KEY)
    assert (status, told in answer["error"]["message"]) == (400, True), answer
    big = b"\0" * (1 << 22)
    assert server.ask("/v1/steer/new", big, method="PUT", key=KEY)[0] == 413
