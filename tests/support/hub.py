"""A hub on loopback that the real huggingface_hub client talks to.

    with serving_hub() as hub:
        hub.add("org/model", {"model.gguf": data}, base_models=["org/base"])
        stores = Stores(Hub(cache, endpoint=hub.url))

Source: the routes and headers that huggingface_hub 2.4 uses, in hf_api.py, file_download.py and utils/_http.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_PIECE = 1 << 14


@dataclass
class Repository:
    """What a repository has, and how it behaves.

    Attributes:
        gated: whether its files are refused to who has no ``token``; its listing is public.
        token: that opens it where it is gated; None: none does.
        bytes_per_s: how fast its files come; None: as fast as they can.
        breaks_after: bytes of a file after which the connection is closed, as often as ``breaks`` says.
        on_piece: called on the sending thread before each piece of a file, with its name and the bytes sent before.
    """

    files: dict[str, bytes | Path]
    revision: str = "main"
    base_models: list[str] = field(default_factory=list)
    gated: bool = False
    token: str | None = None
    bytes_per_s: float | None = None
    breaks_after: int = 0
    breaks: int = 0
    on_piece: Callable[[str, int], None] | None = None

    @property
    def commit(self) -> str:
        names = "\0".join(f"{name} {self.size(name)}" for name in sorted(self.files))
        return hashlib.sha1(names.encode()).hexdigest()

    def size(self, name: str) -> int:
        content = self.files[name]
        return content.stat().st_size if isinstance(content, Path) else len(content)

    def read(self, name: str, start: int, end: int) -> bytes:
        content = self.files[name]
        if isinstance(content, bytes):
            return content[start:end]
        with content.open("rb") as file:
            file.seek(start)
            return file.read(end - start)

    def etag(self, name: str) -> str:
        return hashlib.sha256(f"{name} {self.size(name)}".encode()).hexdigest()


@dataclass
class LoopbackHub:
    """The hub: its repositories, every request that it was sent, and who sent them (Authorization)."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    authorizations: set[str | None] = field(default_factory=set)
    sent_bytes: int = 0

    def add(self, repo: str, files: dict[str, bytes | Path], **how: Any) -> Repository:
        self.repositories[repo] = Repository(files, **how)
        return self.repositories[repo]

    def downloads(self) -> list[str]:
        """Files that were asked for, with the ranges where there were any."""
        return [
            f"{path} {bounds}".strip()
            for method, path, bounds in self.requests
            if method == "GET" and "/resolve/" in path
        ]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LoopbackHub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(body)

    def _answer(self, body: bytes = b"") -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.authorizations.add(self.headers.get("Authorization"))
        self.hub.requests.append((self.command, path, self.headers.get("Range", "")))
        parts = path.strip("/").split("/")
        if parts == ["api", "models"]:
            self._search(parse_qs(urlsplit(self.path).query).get("search", [""])[0])
        elif parts[:2] == ["api", "models"]:
            self._api("/".join(parts[2:4]), parts[4:], body)
        elif len(parts) > 4 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._error(404, "EntryNotFound", f"no route {path}")

    def _search(self, words: str) -> None:
        """Repositories whose name has all words; the first ones that were added are downloaded most."""
        found = [repo for repo in self.hub.repositories if all(word in repo.lower() for word in words.lower().split())]
        self._json([{"id": repo, "downloads": 1000 // (n + 1), "tags": ["gguf"]} for n, repo in enumerate(found)])

    def _find(self, repo: str, revision: str) -> Repository | None:
        found = self.hub.repositories.get(repo)
        if found is None:
            self._error(404, "RepoNotFound", "Repository not found")
        elif revision not in (found.revision, found.commit):
            self._error(404, "RevisionNotFound", "Invalid rev id")
        else:
            return found
        return None

    def _api(self, repo: str, rest: list[str], body: bytes) -> None:
        what = rest[0] if rest else "revision"
        revision = "/".join(rest[1:]) if len(rest) > 1 else "main"
        found = self._find(repo, revision)
        if found is None:
            return
        if what == "revision":
            self._json(
                {
                    "id": repo,
                    "sha": found.commit,
                    "private": False,
                    "gated": "manual" if found.gated else False,
                    "tags": [f"base_model:quantized:{base}" for base in found.base_models],
                    "cardData": {"base_model": found.base_models} if found.base_models else {},
                    "siblings": [{"rfilename": name, "size": found.size(name)} for name in found.files],
                }
            )
        elif what == "tree":
            self._json([self._entry(found, name) for name in found.files])
        elif what == "paths-info":
            wanted = json.loads(body)["paths"]
            self._json([self._entry(found, name) for name in found.files if name in wanted])
        else:
            self._error(404, "EntryNotFound", f"no route {what}")

    def _entry(self, found: Repository, name: str) -> dict[str, Any]:
        return {"type": "file", "path": name, "size": found.size(name), "oid": found.etag(name)[:40]}

    def _file(self, repo: str, revision: str, name: str) -> None:
        found = self._find(repo, revision)
        if found is None:
            return
        if found.gated and (found.token is None or self.headers.get("Authorization") != f"Bearer {found.token}"):
            self._error(403, "GatedRepo", "Access to model is restricted")
            return
        if name not in found.files:
            self._error(404, "EntryNotFound", "Entry not found")
            return
        size = found.size(name)
        start, end, status = 0, size, 200
        if bounds := self.headers.get("Range", "").removeprefix("bytes="):
            first, _, last = bounds.partition("-")
            start, end, status = int(first), min(size, int(last) + 1) if last else size, 206
        self.send_response(status)
        self.send_header("ETag", f'"{found.etag(name)}"')
        self.send_header("X-Repo-Commit", found.commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - start))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.end_headers()
        if self.command == "GET":
            self._send(found, name, start, end)

    def _send(self, found: Repository, name: str, start: int, end: int) -> None:
        sent = 0
        for at in range(start, end, _PIECE):
            piece = found.read(name, at, min(end, at + _PIECE))
            if found.on_piece is not None:
                found.on_piece(name, sent)
            if found.breaks and found.breaks_after and sent + len(piece) > found.breaks_after:
                found.breaks -= 1
                self.close_connection = True
                self.connection.shutdown(2)
                return
            with contextlib.suppress(OSError):
                self.wfile.write(piece)
                self.wfile.flush()
            sent += len(piece)
            self.hub.sent_bytes += len(piece)
            if found.bytes_per_s:
                time.sleep(len(piece) / found.bytes_per_s)

    def _json(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _error(self, status: int, code: str, message: str) -> None:
        data = json.dumps({"error": message}).encode()
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


POLL_S = 0.02
"""How often the hub looks whether it is to end, which each test waits for."""


@contextlib.contextmanager
def serving_hub() -> Iterator[LoopbackHub]:
    """A hub without repositories, for the length of the context."""
    hub = LoopbackHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,), name="hub", daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
