"""Stand-ins for a server, for tests of code that uses this library: a transport without a network, and a real socket.

Both answer `generate`, `generate_stream`, the health routes and the model index as a Triune server does.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from ._errors import BadRequest, NotFound, Overloaded, StatusError
from ._types import Chunk

# A text, its chunks, an error to answer with, or a function from the request's JSON to one of them. A chunk of thinking is a
# `Chunk(text="", reasoning=...)`; calls of tools are the text of a first `Chunk(text=..., tool_format="hermes")`.
Answer = str | Sequence[str | Chunk] | StatusError
Reply = Answer | Callable[[dict[str, Any]], Answer]
_STATUSES: dict[type[StatusError], str] = {
    BadRequest: "INVALID_ARGUMENT",
    NotFound: "NOT_FOUND",
    Overloaded: "UNAVAILABLE",
    StatusError: "INTERNAL",  # what remains
}


@dataclass
class Recorder:
    """What a stand-in was asked.

    Attributes:
        requests: JSON bodies of the generation requests, oldest first.
        cancelled: ids of the requests that were cancelled.
    """

    requests: list[dict[str, Any]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)


class MockTransport(httpx.MockTransport):
    """A transport that answers every prompt with `reply`, without a network.

    `Client(transport=MockTransport("Paris."))`, or the same with `AsyncClient`. A reply that is a `StatusError`
    with a `status` is answered with that HTTP status, and its `code` and `param` are told as a server tells them.
    """

    def __init__(self, reply: Reply, *, model: str = "triune") -> None:
        super().__init__(self._handle)
        self._reply = reply
        self._model = model
        self.recorder = Recorder()

    @property
    def requests(self) -> list[dict[str, Any]]:
        """JSON bodies of the generation requests, oldest first."""
        return self.recorder.requests

    def _handle(self, request: httpx.Request) -> httpx.Response:
        status, kind, pieces = _answer(request.url.path, request.content, self._reply, self._model, self.recorder)
        return httpx.Response(status, headers={"content-type": kind}, content=b"".join(pieces))


@dataclass(kw_only=True)
class MockServer(Recorder):
    """A running stand-in: where it is, and what it was asked."""

    url: str


@contextmanager
def mock_server(reply: Reply, *, model: str = "triune", delay_s: float = 0.0) -> Iterator[MockServer]:
    """Runs a stand-in on a free port of 127.0.0.1 as long as the `with` block; `delay_s` passes before each chunk."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            status, kind, pieces = _answer(self.path, body, reply, model, server)
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            try:
                for piece in pieces:
                    time.sleep(delay_s if kind == "text/event-stream" else 0.0)
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")
            except OSError:
                self.close_connection = True  # the client left

        def log_message(self, format: str, *args: Any) -> None:
            """Keeps the test's output clean."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = MockServer(url=f"http://127.0.0.1:{http.server_port}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def _answer(path: str, body: bytes, reply: Reply, model: str, recorder: Recorder) -> tuple[int, str, Iterator[bytes]]:
    """Status, content type and body pieces of the answer to a request."""
    if path in ("/v2/health/live", "/v2/health/ready", f"/v2/models/{model}/ready"):
        return 200, "application/json", iter(())
    if path == "/v2/repository/index":
        return _json(200, [{"name": model, "version": "1", "state": "READY"}])
    if path not in (f"/v2/models/{model}/generate", f"/v2/models/{model}/generate_stream"):
        return _json(404, {"error": f"no such model or path: {path}"})
    request = json.loads(body)
    request_id = request.get("id", "")
    if request.get("cancel"):
        recorder.cancelled.append(request_id)
        return _json(200, {"id": request_id, "text_output": "", "finish_reason": "cancelled"})
    recorder.requests.append(request)
    answer = reply(request) if callable(reply) else reply
    if isinstance(answer, StatusError):
        return _json(answer.status if isinstance(answer.status, int) else 500, {"error": _error_text(answer)})
    given = [answer] if isinstance(answer, str) else answer
    pieces = [Chunk(text=piece) if isinstance(piece, str) else piece for piece in given]
    if path.endswith("generate"):
        return _json(200, _outputs(request, pieces, 0, last=True))
    return 200, "text/event-stream", _events(request, pieces, recorder)


def _error_text(error: StatusError) -> str:
    if error.code is None:
        return error.message
    name = next(name for kind, name in _STATUSES.items() if isinstance(error, kind))
    return f"{name} [{error.code}{f' {error.param}' if error.param else ''}]: {error.message}"


def _events(request: dict[str, Any], pieces: Sequence[Chunk], recorder: Recorder) -> Iterator[bytes]:
    for index, piece in enumerate(pieces):
        outputs = _outputs(request, [piece], index, last=index == len(pieces) - 1)
        if request.get("id") in recorder.cancelled:
            outputs |= {"text_output": "", "finish_reason": "cancelled", "num_output_tokens": 0}
        for sequence in range(request.get("n", 1)):
            outputs |= {"sequence_index": sequence} | ({"num_input_tokens": 0} if sequence else {})
            yield b"data: %s\n\n" % json.dumps(outputs).encode()
        if outputs["finish_reason"]:
            return


def _outputs(request: dict[str, Any], pieces: Sequence[Chunk], index: int, *, last: bool) -> dict[str, Any]:
    """A response with these pieces, each of them a token."""
    prompt = str(request.get("text_input") or request.get("messages") or "")
    thinking = [piece.reasoning for piece in pieces if piece.reasoning]
    apart: dict[str, Any] = {"reasoning_output": "".join(thinking), "num_reasoning_tokens": len(thinking)} if thinking else {}
    if pieces and pieces[0].tool_format:
        apart["tool_format"] = pieces[0].tool_format
    return apart | {
        "id": request.get("id", ""),
        "text_output": "".join(piece.text for piece in pieces),
        "finish_reason": "stop" if last else "",
        "stop_reason": "",
        "chunk_index": index,
        "num_input_tokens": 0 if index else len(prompt.split()),
        "num_output_tokens": len(pieces),
        "request_key": 1,
    }


def _json(status: int, value: Any) -> tuple[int, str, Iterator[bytes]]:
    return status, "application/json", iter((json.dumps(value).encode(),))
