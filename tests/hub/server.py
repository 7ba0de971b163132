"""A server on the loopback that speaks what `huggingface_hub` asks of the Hub for a model."""

import hashlib
import json
import re
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_of_the_test"


@dataclass
class Hub:
    """What the server holds, and what it was asked.

    Args:
        repos: By repository, its commits: id and files.
        blobs: Uploaded objects by SHA-256.
        asked: Method and path of each request.
        hidden: Whether a repository was created as private.
    """

    repos: dict[str, list[tuple[str, dict[str, bytes]]]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    hidden: dict[str, bool] = field(default_factory=dict)
    endpoint: str = ""

    def commit(self, repo: str, files: dict[str, bytes], sha: str | None = None) -> str:
        """Add a commit with these files beside those that are there; return its id."""
        commits = self.repos.setdefault(repo, [])
        files = {**(commits[-1][1] if commits else {}), **files}
        named = "".join(f"{n}{hashlib.sha1(data).hexdigest()}" for n, data in files.items())
        made = sha or hashlib.sha1(f"{len(commits)}{named}".encode()).hexdigest()
        commits.append((made, files))
        return made

    def at(self, repo: str, revision: str = "main") -> tuple[str, dict[str, bytes]] | None:
        """Return a commit and its files."""
        commits = self.repos.get(repo, [])
        found = [c for c in commits if revision in ("main", c[0])]
        return found[-1] if found else None

    def files(self, repo: str) -> dict[str, bytes]:
        """Return the newest files."""
        return self.repos[repo][-1][1]


@contextmanager
def serving() -> Iterator[Hub]:
    """Run a Hub on a free port of the loopback."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for method, pattern, answer in _ROUTES:
            found = re.fullmatch(pattern, path)
            if self.command in method and found:
                return answer(self, *found.groups(), body)
        return self._say(404, {"error": f"no route for {self.command} {path}"})

    do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815

    def log_message(self, *args: object) -> None:
        """Stay silent."""

    def _say(self, status: int, content: Any, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _known(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._say(401, {"error": "Invalid username or password."})
        return False

    def _missing(self, code: str) -> None:
        self._say(404, {"error": code}, X_Error_Code=code)

    def create(self, body: bytes) -> None:
        if not self._known():
            return
        asked = json.loads(body)
        repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
        status = 409 if repo in self.hub.repos else 200
        if status == 200:
            self.hub.hidden[repo] = asked.get("visibility") == "private"
            self.hub.commit(repo, {".gitattributes": b""})
        self._say(status, {"url": f"{self.hub.endpoint}/{repo}", "id": repo})

    def info(self, repo: str, revision: str | None, body: bytes) -> None:
        found = self.hub.at(repo, revision or "main")
        if found is None:
            return self._missing("RevisionNotFound" if repo in self.hub.repos else "RepoNotFound")
        siblings = [{"rfilename": name} for name in found[1]]
        return self._say(200, {"id": repo, "sha": found[0], "siblings": siblings})

    def tree(self, repo: str, revision: str, body: bytes) -> None:
        found = self.hub.at(repo, revision)
        if found is None:
            return self._missing("RevisionNotFound")
        rows = [
            {"type": "file", "path": n, "size": len(d), "oid": hashlib.sha1(d).hexdigest()}
            for n, d in found[1].items()
        ]
        return self._say(200, rows)

    def validate(self, body: bytes) -> None:
        text = json.loads(body)["content"]
        try:
            metadata = yaml.safe_load(text.split("---")[1])
            errors = [] if isinstance(metadata["tags"], list) else ["tags"]
        except (yaml.YAMLError, LookupError, TypeError) as error:
            errors = [str(error)]
        said = {"warnings": [], "errors": [{"message": error} for error in errors]}
        self._say(400 if errors else 200, said)

    def preupload(self, repo: str, revision: str, body: bytes) -> None:
        if not self._known():
            return
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self._say(200, {"files": files})

    def batch(self, repo: str, body: bytes) -> None:
        objects = []
        for wanted in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.endpoint}/objects/{wanted['oid']}"}}
            objects.append({**wanted, "actions": upload})
        self._say(200, {"transfer": "basic", "objects": objects})

    def upload(self, oid: str, body: bytes) -> None:
        right = hashlib.sha256(body).hexdigest() == oid
        if right:
            self.hub.blobs[oid] = body
        self._say(200 if right else 400, {})

    def commit(self, repo: str, revision: str, body: bytes) -> None:
        if not self._known():
            return None
        lines = [json.loads(line) for line in body.splitlines()]
        head = lines[0]["value"]
        if head.get("parentCommit") not in (None, self.hub.repos[repo][-1][0]):
            return self._say(412, {"error": "A commit has happened since."})
        files = {}
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = b64decode(value["content"])
            else:
                files[value["path"]] = self.hub.blobs[value["oid"]]
        sha = self.hub.commit(repo, files)
        url = f"{self.hub.endpoint}/{repo}/commit/{sha}"
        return self._say(200, {"commitUrl": url, "commitOid": sha})

    def resolve(self, repo: str, revision: str, name: str, body: bytes) -> None:
        found = self.hub.at(repo, revision)
        if found is None or name not in found[1]:
            return self._missing("EntryNotFound" if found else "RevisionNotFound")
        data = found[1][name]
        etag = f'"{hashlib.sha1(data).hexdigest()}"'
        return self._say(200, data, ETag=etag, X_Repo_Commit=found[0])


_REPO = r"([\w.-]+/[\w.-]+)"
_ROUTES: list[tuple[tuple[str, ...], str, Any]] = [
    (("POST",), "/api/repos/create", _Handler.create),
    (("GET",), rf"/api/models/{_REPO}(?:/revision/(.+))?", _Handler.info),
    (("GET",), rf"/api/models/{_REPO}/tree/([^/]+)", _Handler.tree),
    (("POST",), "/api/validate-yaml", _Handler.validate),
    (("POST",), rf"/api/models/{_REPO}/preupload/([^/]+)", _Handler.preupload),
    (("POST",), rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.batch),
    (("PUT",), r"/objects/(\w+)", _Handler.upload),
    (("POST",), rf"/api/models/{_REPO}/commit/([^/]+)", _Handler.commit),
    (("GET", "HEAD"), rf"/{_REPO}/resolve/([^/]+)/(.+)", _Handler.resolve),
]
