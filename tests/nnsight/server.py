"""A stand-in for the remote service, on the loopback interface, in a process of its own.

`python server.py MODEL_DIRECTORY` prints its port and serves until its input ends. It takes the
requests that nnsight sends, runs them on the model and answers over the websocket, as far as the
client can tell. This library and its tests cannot be imported here.
"""

import base64
import hashlib
import json
import queue
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

FORBIDDEN = ("steer", "tests", "jaxtyping")


class Absent:
    """Makes modules impossible to import, as if they were not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.split(".")[0] in FORBIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent())
sys.path.pop(0)  # the directory of this file

import torch  # noqa: E402
from nnsight import TransformersModel  # noqa: E402
from nnsight.schema.request import RequestModel  # noqa: E402
from nnsight.schema.response import ResponseModel, Status  # noqa: E402
from nnsight.tracing import tracer as tracing  # noqa: E402

torch.set_num_threads(1)
MODEL = TransformersModel(sys.argv[1], task="text-generation", dispatch=True)
ANSWERS: dict[str, "queue.Queue[ResponseModel]"] = {}


def run(blob: bytes, compress: bool) -> dict[str, Any]:
    """Run a request and return what it saved."""
    restored = RequestModel.deserialize(blob, MODEL._remoteable_persistent_objects(), compress)
    tracing.inc()
    try:
        restored.execute(restored.info.code)
        saved = tracing._saves()
        variables = restored.info.frame.f_locals
        return {name: value for name, value in variables.items() if id(value) in saved}
    finally:
        tracing.dec()


def packed(result: dict[str, Any], compress: bool) -> bytes:
    import io

    import zstandard

    file = io.BytesIO()
    torch.save(result, file)
    return zstandard.ZstdCompressor().compress(file.getvalue()) if compress else file.getvalue()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    requests: ClassVar[list[dict[str, Any]]] = []

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/requests":
            self._reply(json.dumps(self.requests).encode())
            return
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_response(101)
        for name, value in (("Upgrade", "websocket"), ("Connection", "Upgrade")):
            self.send_header(name, value)
        self.send_header("Sec-WebSocket-Accept", accept)
        self.end_headers()
        session = str(len(ANSWERS))
        ANSWERS[session] = queue.Queue()
        self._frame(1, json.dumps({"session_id": session}).encode())
        while True:
            answer = ANSWERS[session].get()
            if answer.status is Status.COMPLETED:
                self._frame(2, answer.pickle())
            else:
                self._frame(1, answer.model_dump_json().encode())
            if answer.status in (Status.COMPLETED, Status.ERROR):
                break
        self.close_connection = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        boundary = self.headers["Content-Type"].partition("boundary=")[2].encode()
        parts = [part.partition(b"\r\n\r\n") for part in body.split(b"--" + boundary)[1:-1]]
        fields = {head.split(b'name="')[1].split(b'"')[0]: rest[:-2] for head, _, rest in parts}
        request = RequestModel.model_validate_json(fields[b"data"])
        headers = ("ndif-api-key", "nnsight-version", "python-version")
        self.requests.append(
            {"model_key": request.model_key, "bytes": len(fields[b"blob"])}
            | {name: self.headers[name] for name in headers}
        )
        first = ResponseModel(id="job", status=Status.RECEIVED)
        self._reply(first.model_dump_json().encode())
        answers = ANSWERS[request.session_id]
        answers.put(ResponseModel(id="job", status=Status.RUNNING))
        try:
            result = packed(run(fields[b"blob"], request.compress), request.compress)
            answers.put(ResponseModel(id="job", status=Status.COMPLETED, data=result))
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told
            text = f"{type(error).__name__}: {error}"
            answers.put(ResponseModel(id="job", status=Status.ERROR, description=text))

    def _reply(self, text: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _frame(self, kind: int, data: bytes) -> None:
        if len(data) < 126:
            size = struct.pack("!B", len(data))
        elif len(data) < 2**16:
            size = struct.pack("!BH", 126, len(data))
        else:
            size = struct.pack("!BQ", 127, len(data))
        self.wfile.write(bytes([0x80 | kind]) + size + data)
        self.wfile.flush()


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.read()  # until whoever started it goes


main()
