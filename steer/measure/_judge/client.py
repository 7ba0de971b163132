"""Questions to an endpoint through the standard client, each bounded in time and in size."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

from steer.errors import MissingExtraError
from steer.measure._judge.verdicts import said

_MEBIBYTE = 2**20
_LONGEST = 8 * _MEBIBYTE  # bytes of a reply
_SHOWN = 200  # characters of what is no chat completion
_TURNED_DOWN = (400, 413, 422)  # statuses that are about one request, not about the endpoint
_TEXT = ("text", "output_text")  # parts of a content that are said, not thought

Mask = Callable[[str], str]


class Heard(NamedTuple):
    """What came back: a reply, or an error, and whether only this question caused it."""

    reply: str | None = None
    error: str | None = None
    alone: bool = False


class ReplyTooLongError(Exception):
    """A reply of more bytes than are read."""


def replies(
    settings: Mapping[str, Any],
    requests: Sequence[Mapping[str, Any]],
    *,
    timeout: float,
    workers: int,
    mask: Mask,
) -> list[Heard]:
    """Ask all questions, several at the same time, in an event loop of their own thread.

    Questions are asked one by one until one does not fail alone; if that one fails, it is the last.

    Args:
        settings: Arguments of the client.
        requests: Arguments of each chat completion.
        timeout: Seconds from the beginning of a request to the last byte of its reply.
        workers: Requests under way at the same time, at most.
        mask: Applied to the text of an error before it is cut.

    Raises:
        MissingExtraError: The client is not installed.
    """
    library = _library()
    from anyio.from_thread import start_blocking_portal

    with start_blocking_portal() as portal:
        return portal.call(partial(_all, library, settings, requests, timeout, workers, mask))


async def _all(
    library: Any,
    settings: Mapping[str, Any],
    requests: Sequence[Mapping[str, Any]],
    timeout: float,
    workers: int,
    mask: Mask,
) -> list[Heard]:
    import anyio

    found: list[Heard] = []
    try:
        client = library.AsyncOpenAI(http_client=_bounded(library, timeout), **settings)
    except Exception as error:  # noqa: BLE001  # no key, or an address that is none
        return [Heard(error=said(error, mask))]
    async with client:
        for request in requests:
            found.append(await _heard(client, request, mask))
            if not found[-1].alone:
                break
        if found and found[-1].error is not None:
            return found
        rest = requests[len(found) :]
        later = [Heard()] * len(rest)
        free = anyio.CapacityLimiter(workers)

        async def ask(k: int) -> None:
            async with free:
                later[k] = await _heard(client, rest[k], mask)

        async with anyio.create_task_group() as group:
            for k in range(len(rest)):
                group.start_soon(ask, k)
    return found + later


async def _heard(client: Any, request: Mapping[str, Any], mask: Mask) -> Heard:
    """Return what one question gives; no error of it ends the others."""
    try:
        completion = await client.chat.completions.create(**request)
        reply = _reply(completion)
        if reply is None:
            return Heard(error=mask(f"no chat completion: {completion!r}")[:_SHOWN])
    except Exception as error:  # noqa: BLE001  # whatever a server, or a text, makes go wrong
        alone = isinstance(error, ReplyTooLongError | RecursionError | UnicodeEncodeError)
        alone = alone or getattr(error, "status_code", None) in _TURNED_DOWN
        return Heard(error=said(error, mask), alone=alone)
    return Heard(reply)


def _bounded(library: Any, timeout: float) -> Any:
    """Return an HTTP client that reads a reply whole, within a deadline and up to a length."""
    import anyio

    http = import_module("httpx2")  # what the client library is built on

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
    """Return the bytes of a reply, which must be neither too many nor packed."""
    packed = response.headers.get("content-encoding", "identity")
    if packed != "identity":
        raise ValueError(f"the reply is compressed ({packed}), though it was asked for as it is")
    content = bytearray()
    async for piece in response.aiter_raw():
        content += piece
        if len(content) > _LONGEST:
            raise ReplyTooLongError(f"the reply is longer than {_LONGEST // _MEBIBYTE} MiB")
    return bytes(content)


def _reply(completion: Any) -> str | None:
    """Return what was said, or why it was refused; None if this is no chat completion."""
    try:
        message = completion.choices[0].message
        text = message.content or message.refusal or ""
        if isinstance(text, list):
            text = "".join(part["text"] for part in text if part["type"] in _TEXT)
    except (AttributeError, IndexError, KeyError, TypeError):
        return None
    return text if isinstance(text, str) else None


def _library() -> Any:
    try:
        return import_module("openai")
    except ImportError as error:
        raise MissingExtraError(
            "a judge at an endpoint needs the OpenAI client",
            found="it is not installed",
            expected="the extra 'judge'",
            do="pip install 'residual-steer[judge]'",
        ) from error
