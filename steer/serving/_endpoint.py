"""Vectors loaded, unloaded and listed over HTTP while a vLLM server runs.

Requests in flight keep the vector that they began with: a vector is written into a slot that no
running request uses, and the name points to it only when every worker has it.
"""

import asyncio
import os
import re
import secrets
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse

from steer.algebra import Part
from steer.errors import ArgumentError, SteerError
from steer.serving._configuration import Configuration, check_fits
from steer.serving._folder import digest, read_part, rows
from steer.serving._install import library
from steer.serving._library import Library

ADMIN_KEY = "STEER_ADMIN_KEY"  # the environment variable; without it nothing can be loaded
_HEADER = "x-steer-key"
_NAME = re.compile(r"\w(?:[\w .-]{0,98}\w)?")
_HEADER_BYTES = 1 << 20  # of a vector file, beside its directions


class Endpoint:
    """The plugin that vLLM's API server loads if `VLLM_PLUGINS` names `steer`."""

    name = "steer"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Register the routes."""
        router = APIRouter(prefix="/v1/steer")
        router.add_api_route("", _list, methods=["GET"])
        router.add_api_route("/{domain}", _load, methods=["PUT"])
        router.add_api_route("/{domain}", _unload, methods=["DELETE"])
        app.include_router(router)

    async def init_state(self, engine_client: Any, state: Any, args: object) -> None:
        """Keep what the routes need."""
        held = library(engine_client.vllm_config) if engine_client is not None else None
        state.steer = None if held is None else _Shelf(engine_client, held)


class _Shelf:
    """The slots of a running engine."""

    def __init__(self, engine: Any, held: Library) -> None:
        self.engine, self.held = engine, held
        self.own = Configuration.of(engine.vllm_config)
        self.lock = asyncio.Lock()  # one change at a time
        self._retired: dict[int, set[str]] = {}  # slot: the requests that may still read it

    def free(self) -> int | None:
        """Return a slot that no vector in force and no running request uses."""
        running = self.engine.output_processor.request_states.keys()
        taken = {loaded.slot for loaded in self.held.loaded.values()}
        for slot in range(self.own.capacity):
            if slot not in taken and not self._retired.get(slot, set()) & running:
                return slot
        return None

    async def load(self, domain: str, part: Part, slot: int) -> None:
        """Write a vector into a slot of every worker, then let requests name it."""
        data = {layer: row.numpy().tobytes() for layer, row in rows(part.vector).items()}
        await self.engine.collective_rpc("steer_write", args=(slot, digest(part.vector), data))
        self.retire(domain)
        self.held.put(domain, slot, part)

    def retire(self, domain: str) -> None:
        """Refuse a domain from now on; its slot waits for the requests that run."""
        if (loaded := self.held.loaded.get(domain)) is not None:
            self.held.drop(domain)
            self._retired[loaded.slot] = set(self.engine.output_processor.request_states)


async def _list(request: Request) -> Response:
    shelf = request.app.state.steer
    if shelf is None:
        return _answer(404, "this server was started without vectors")
    return JSONResponse(
        {
            "vectors": {
                name: {
                    "sha256": loaded.digest,
                    "layers": list(loaded.layers),
                    "scope": str(loaded.scope),
                }
                for name, loaded in shelf.held.loaded.items()
            },
            "capacity": shelf.own.capacity,
            "layers": list(shelf.own.layers),
            "max_coefficient": shelf.own.max_coefficient,
        }
    )


async def _load(domain: str, request: Request) -> Response:
    shelf = request.app.state.steer
    if refused := _refusal(shelf, request):
        return refused
    if not _NAME.fullmatch(domain):
        return _answer(
            400,
            "a domain is up to 100 letters, digits, underscores, and spaces, dots, hyphens between",
        )
    most = 4 * shelf.own.width * len(shelf.own.layers) + _HEADER_BYTES
    data = bytearray()
    async for chunk in request.stream():  # to its end, or the client sees no answer
        if len(data) <= most:
            data += chunk
    if len(data) > most:
        return _answer(413, f"a vector file for this server has at most {most} bytes")
    try:
        part = await asyncio.to_thread(_read, domain, bytes(data), shelf.own)
    except SteerError as error:
        return _answer(400, str(error))
    async with shelf.lock:
        if (slot := shelf.free()) is None:
            return _answer(
                409,
                f"all {shelf.own.capacity} slots are in use: unload a vector, wait for the "
                "requests that use it, or start the server with a larger `capacity`",
            )
        await shelf.load(domain, part, slot)
    return await _list(request)


async def _unload(domain: str, request: Request) -> Response:
    shelf = request.app.state.steer
    if refused := _refusal(shelf, request):
        return refused
    async with shelf.lock:
        if domain not in shelf.held.loaded:
            return _answer(404, f"no vector {domain[:100]!r} is loaded")
        shelf.retire(domain)
    return await _list(request)


def _read(domain: str, data: bytes, own: Configuration) -> Part:
    """Return the vector of an uploaded file, or refuse it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "vector.safetensors"
        path.write_bytes(data)
        part = read_part(domain, path)
    if part.vector.sites != part.vector.residual.sites:
        raise ArgumentError(
            f"the vector {domain!r} changes weights",
            found="weight sites",
            expected="directions: a running server loads these only",
            do="put it into the folder that the server is started with",
        )
    check_fits(domain, part, own)
    if beyond := set(part.vector.layers) - set(own.layers):
        raise ArgumentError(
            f"the vector {domain!r} steers layers that this server does not",
            found=f"layers {sorted(beyond)}",
            expected=f"layers among {list(own.layers)}",
            do="start the server with these in `layers`",
        )
    return part


def _refusal(shelf: Any, request: Request) -> Response | None:
    """Return the answer to a client that may not change vectors, or None."""
    key = os.environ.get(ADMIN_KEY, "")
    if shelf is None:
        return _answer(404, "this server was started without vectors")
    if not key:
        return _answer(403, f"this server was started without {ADMIN_KEY}: its vectors are fixed")
    if not secrets.compare_digest(request.headers.get(_HEADER, "").encode(), key.encode()):
        return _answer(401, f"the header {_HEADER} does not hold this server's {ADMIN_KEY}")
    return None


def _answer(status: int, text: str) -> Response:
    return JSONResponse({"error": {"message": text, "code": status}}, status)
