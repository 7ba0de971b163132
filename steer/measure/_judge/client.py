"""Requests to an endpoint through the standard client, each bounded in time and size."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from steer._check import need
from steer.measure._judge.verdicts import error_line

_MEBIBYTE = 2**20
_LONGEST = 8 * _MEBIBYTE  # bytes of a reply
_SHOWN = 200  # characters of a reply that is not a chat completion
_REJECTED = (400, 413, 422)  # statuses of one request, not of the endpoint
_TEXT = ("text", "output_text")  # parts of a content that are not reasoning

Mask = Callable[[str], str]


class RequestOutcome(NamedTuple):
    """A reply or an error, and whether the error concerns this request alone."""

    reply: str | None = None
    error: str | None = None
    alone: bool = False


class ReplyTooLongError(Exception):
    """A reply with more bytes than are read."""


def ask_all(
    settings: Mapping[str, Any],
    requests: Sequence[Mapping[str, Any]],
    *,
    timeout: float,
    workers: int,
    mask: Mask,
) -> list[RequestOutcome]:
    """Return the outcomes of chat completions that an event loop in a thread of its own sends.

    Requests go one by one until one does not fail by itself; if that one fails, it is the last.
    """
    need("a judge at an endpoint", "openai", "httpx2", "anyio", extra="judge")
    import anyio
    import openai
    from anyio.from_thread import start_blocking_portal

    async def run() -> list[RequestOutcome]:
        found: list[RequestOutcome] = []
        try:
            client = openai.AsyncOpenAI(http_client=_bounded(openai, timeout), **settings)
        except Exception as error:  # noqa: BLE001  # no key, or an invalid address
            return [RequestOutcome(error=error_line(error, mask))]
        async with client:
            for request in requests:
                found.append(await _outcome(client, request, mask))
                if not found[-1].alone:
                    break
            if found and found[-1].error is not None:
                return found
            rest = requests[len(found) :]
            later = [RequestOutcome()] * len(rest)
            free = anyio.CapacityLimiter(workers)

            async def ask(k: int) -> None:
                async with free:
                    later[k] = await _outcome(client, rest[k], mask)

            async with anyio.create_task_group() as group:
                for k in range(len(rest)):
                    group.start_soon(ask, k)
        return found + later

    with start_blocking_portal() as portal:
        return portal.call(run)


async def _outcome(client: Any, request: Mapping[str, Any], mask: Mask) -> RequestOutcome:
    """Return the outcome of one request; its errors do not end the others."""
    try:
        completion = await client.chat.completions.create(**request)
        reply = _reply(completion)
        if reply is None:
            return RequestOutcome(error=mask(f"no chat completion: {completion!r}")[:_SHOWN])
    except Exception as error:  # noqa: BLE001  # any failure of a server or a text
        alone = isinstance(error, ReplyTooLongError | RecursionError | UnicodeEncodeError)
        alone = alone or getattr(error, "status_code", None) in _REJECTED
        return RequestOutcome(error=error_line(error, mask), alone=alone)
    return RequestOutcome(reply)


def _bounded(library: Any, timeout: float) -> Any:
    """Return an HTTP client that reads whole replies within a deadline and a maximum length."""
    import anyio

    http = import_module("httpx2")  # the library beneath the client

    class Bounded(library.DefaultAsyncHttpxClient):  # type: ignore[misc]  # known when installed
        async def send(self, request: Any, **options: Any) -> Any:
            try:
                with anyio.fail_after(timeout):
                    response = await super().send(request, **options | {"stream": True})
                    try:
                        content = await _content(response)
                    finally:
                        await response.aclose()
            except TimeoutError as error:
                raise http.ReadTimeout(
                    f"no whole reply in {timeout:g} s", request=request
                ) from error
            return http.Response(
                response.status_code,
                headers=response.headers,
                content=content,
                request=response.request,
            )

    return Bounded(headers={"accept-encoding": "identity"})


async def _content(response: Any) -> bytes:
    """Return the bytes of a reply; refuse a compressed or too long one."""
    packed = response.headers.get("content-encoding", "identity")
    if packed != "identity":
        raise ValueError(f"the reply is compressed ({packed}), though compression was declined")
    content = bytearray()
    async for piece in response.aiter_raw():
        content += piece
        if len(content) > _LONGEST:
            raise ReplyTooLongError(f"the reply is longer than {_LONGEST // _MEBIBYTE} MiB")
    return bytes(content)


def _reply(completion: Any) -> str | None:
    """Return the text of a reply or of its refusal; None if this is not a chat completion."""
    try:
        message = completion.choices[0].message
        text = message.content or message.refusal or ""
        if isinstance(text, list):
            text = "".join(part["text"] for part in text if part["type"] in _TEXT)
    except (AttributeError, IndexError, KeyError, TypeError):
        return None
    return text if isinstance(text, str) else None
