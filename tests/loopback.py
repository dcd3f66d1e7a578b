"""A model hub on loopback, with one repository and whatever a test wants to go wrong with it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

PIECE = 4096  # bytes written at once
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """One repository and what goes wrong with it."""

    repo: str
    files: dict[str, bytes]
    weights: str  # the file that things go wrong with
    url: str = ""
    cuts: int = 0  # how many more downloads of the weights break off in the middle
    # bytes of the weights that are never sent, though the length announced includes them
    sends_less: int = 0
    pause: float = 0.0  # seconds between two pieces of the weights
    status: int = 200  # of every answer
    token: str = ""  # that who writes must have
    cut_uploads: int = 0  # how many more files that are sent break off in the middle
    refuses_commit: bool = False
    sent: dict[str, bytes] = field(default_factory=dict)  # by SHA-256, until a commit names them
    requests: list[str] = field(default_factory=list)

    def downloads(self, name: str) -> int:
        return sum(line.startswith("GET") and line.endswith(name) for line in self.requests)


def handler_of(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def do_POST(self) -> None:
            hub.requests.append(f"POST {self.path}")
            said = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path == "/api/validate-yaml":
                return self.tell({"errors": [], "warnings": []})
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self.fail(401, None)
            if hub.status != 200:
                return self.fail(hub.status, None)
            if self.path == "/api/repos/create":
                asked = json.loads(said)
                hub.repo = "/".join(filter(None, (asked.get("organization"), asked["name"])))
                return self.tell({"url": f"{hub.url}/{hub.repo}"})
            if self.path.endswith("/preupload/main"):
                return self.tell({"files": [_upload(file) for file in json.loads(said)["files"]]})
            if self.path.endswith("/info/lfs/objects/batch"):
                objects = json.loads(said)["objects"]
                return self.tell({"objects": [_action(hub, one) for one in objects]})
            if self.path.endswith("/commit/main"):
                if hub.refuses_commit:
                    return self.fail(500, None)
                commit(hub, [json.loads(line) for line in said.splitlines()])
                told = {"commitUrl": f"{hub.url}/{hub.repo}/commit/{COMMIT}", "commitOid": COMMIT}
                return self.tell({**told, "hookOutput": "", "pullRequestUrl": None})
            return self.fail(404, None)

        def do_PUT(self) -> None:
            hub.requests.append(f"PUT {self.path}")
            length = int(self.headers["Content-Length"])
            if hub.cut_uploads:
                hub.cut_uploads -= 1
                self.rfile.read(length // 2)
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            hub.sent[self.path.rpartition("/")[2]] = self.rfile.read(length)
            self.tell({})

        def tell(self, answer: object) -> None:
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def answer(self, body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            if self.path.startswith("/api/"):
                return self.fail(404, None)
            found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
            if hub.status != 200:
                return self.fail(hub.status, None)
            if not found or found[1] != hub.repo or found[2] not in ("main", COMMIT):
                return self.fail(404, "RepoNotFound")
            if found[3] not in hub.files:
                return self.fail(404, "EntryNotFound")
            return self.send(found[3], hub.files[found[3]], body)

        def fail(self, status: int, code: str | None) -> None:
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send(self, name: str, content: bytes, body: bool) -> None:
            weights = name == hub.weights
            wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(wanted[1]) if wanted else 0
            part = content[start : len(content) - hub.sends_less if weights and body else None]
            self.send_response(206 if wanted else 200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Accept-Ranges", "bytes")
            if wanted:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            if not body:
                return
            if weights and hub.cuts:
                hub.cuts -= 1
                self.wfile.write(part[: len(part) // 2])
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            with suppress(BrokenPipeError, ConnectionResetError):  # the client gave up
                for at in range(0, len(part), PIECE):
                    self.wfile.write(part[at : at + PIECE])
                    if weights and hub.pause:
                        threading.Event().wait(hub.pause)  # time.sleep does nothing here

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return Handler


def _upload(file: dict[str, str]) -> dict[str, object]:
    large = file["path"].endswith(".safetensors")
    mode = "lfs" if large else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}


def _action(hub: Hub, one: dict[str, object]) -> dict[str, object]:
    where = {"href": f"{hub.url}/upload/{one['oid']}"}
    return {**one, "actions": {} if one["oid"] in hub.sent else {"upload": where}}


def commit(hub: Hub, lines: list[dict[str, dict[str, str]]]) -> None:
    """Take the files that are named, those that were sent before included, all at once."""
    new = {}
    for line in lines:
        value = line["value"]
        if line["key"] == "file":  # type: ignore[comparison-overlap]
            new[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":  # type: ignore[comparison-overlap]
            new[value["path"]] = hub.sent[value["oid"]]
    hub.files.update(new)


@contextmanager
def served(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub as the one to ask, with ``cache`` as the cache and no waiting between tries."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 2)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # plain HTTP
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def nobody_listens() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"
