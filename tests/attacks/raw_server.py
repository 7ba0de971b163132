"""A server on this machine that answers each request with whatever bytes a test writes."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Send = Callable[[bytes], None]


def completion(content: str) -> bytes:
    """The body of a chat completion with that content."""
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return json.dumps({"id": "1", "object": "chat.completion", "choices": [choice]}).encode()


def head(length: int, *lines: str, status: str = "200 OK") -> bytes:
    """The head of a reply whose body has that many bytes, the last one of its connection.

    Without `connection: close` a client may send its next request on a connection that the server
    is closing, and read a reset.
    """
    fields = [f"HTTP/1.1 {status}", "content-type: application/json", "connection: close", *lines]
    return "\r\n".join([*fields, f"content-length: {length}", "", ""]).encode()


@contextmanager
def raw_server(answer: Callable[[Send, str], None]) -> Iterator[str]:
    """Serve while the context lasts: one request a connection; give the URL of the endpoint.

    Args:
        answer: Writes the whole reply, from a function that sends bytes and the request's body.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(0.05)
    done = threading.Event()
    threads: list[threading.Thread] = []

    def one(connection: socket.socket) -> None:
        with connection, suppress(OSError):  # of clients that have hung up
            connection.settimeout(20)
            answer(connection.sendall, _request(connection))

    def accept() -> None:
        while not done.is_set():
            with suppress(TimeoutError):
                threads.append(threading.Thread(target=one, args=listening.accept()[:1]))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    finally:
        done.set()
        accepting.join()
        for thread in threads:
            thread.join()
        listening.close()


def _request(connection: socket.socket) -> str:
    """Return the body of the request, its head before it."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    before, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in before.split(b"\r\n")[1:])
    while len(body) < int(fields[b"content-length"]):
        body += connection.recv(65536)
    return (before + b"\n" + body).decode()
