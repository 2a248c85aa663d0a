"""The hub, stood in for by a local HTTP server that holds one repository. Programs find it by HF_ENDPOINT."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote

COMMIT = "c" * 40
REPOSITORY = "own/tiny"


@dataclass
class Hub:
    """What the server holds and does; `ranges` notes which bytes of the weights were asked for."""

    files: dict[str, bytes]
    status: int = 200
    error_code: str = ""
    cut_after: int | None = None  # bytes of the weights after which the connection breaks, once
    down_after_cut: bool = False  # from then on it answers 503
    ranges: list[str | None] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    endpoint: str = ""


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.hub, unquote(self.path.partition("?")[0])
        if hub.status != 200:
            self.reply(hub.status, b"{}", {"X-Error-Code": hub.error_code, "X-Error-Message": "the stand-in says no"})
        elif re.fullmatch(rf"/api/models/{REPOSITORY}/(revision/\w+)", path) or path == f"/api/models/{REPOSITORY}":
            files = [{"rfilename": name} for name in hub.files]
            self.reply(200, json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": files}).encode())
        elif path.startswith(f"/api/models/{REPOSITORY}/tree/{COMMIT}"):
            entries = [
                {"type": "file", "path": n, "size": len(d), "oid": hashlib.sha1(d).hexdigest()} for n, d in hub.files.items()
            ]
            self.reply(200, json.dumps(entries).encode())
        elif path.startswith(f"/{REPOSITORY}/resolve/") and (name := path.rpartition("/")[2]) in hub.files:
            self.file(name)
        else:
            self.reply(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def file(self, name: str) -> None:
        hub, data, wanted = self.hub, self.hub.files[name], self.headers.get("Range")
        start = int(re.findall(r"bytes=(\d+)-", wanted)[0]) if wanted else 0
        body, headers = data[start:], {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if self.command == "GET":
            hub.fetched.append(name)
            if name == "model.safetensors":
                hub.ranges.append(wanted)
                if hub.cut_after is not None:
                    body, hub.cut_after = body[: hub.cut_after], None
                    hub.status = 503 if hub.down_after_cut else 200
        self.send_response(206 if wanted else 200)
        for key, value in {"Content-Length": str(len(data) - start), "Accept-Ranges": "bytes", **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
            self.close_connection = True


@contextmanager
def standing_in(hub: Hub) -> Iterator[Hub]:
    """Answer for `hub` at `hub.endpoint` while the body runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def of_folder(folder: Path) -> Hub:
    """A hub that holds the checkpoint in `folder`."""
    return Hub({path.name: path.read_bytes() for path in folder.iterdir()})
