"""Requests that are meant to do harm, and more of them than there is room for."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx

from ..answers import ANSWERED, CHAT, GENERATE, QUESTIONS, REFUSED, ask, post
from ..scene import Scene

_LIMIT_S = 30.0  # for an answer of any kind
QUEUE_S = 120.0  # for one of 256 that wait for their turn: on a machine that others use they take more than a minute
_TIMES = 20  # as many at once as there are slots
_SLOTS = 16
_DATAGRAM = "0002"  # in /proc/net/unix
_GENERATE = "/v2/models/triune/generate"
_CHAT = "/v1/chat/completions"


def overload(scene: Scene) -> None:
    """Twenty times as many requests at once as there are slots: each is answered rightly, or refused."""
    server = scene.server
    asked = [((GENERATE, CHAT)[n % 2], scene.chance.choice(QUESTIONS[:4])) for n in range(_TIMES * _SLOTS)]
    with ThreadPoolExecutor(len(asked)) as pool:
        outcomes = list(pool.map(lambda one: ask(server.where, one[0], one[1], server.texts, QUEUE_S), asked))
    kinds = [outcome.kind for outcome in outcomes]
    scene.note(", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds))))
    for outcome in outcomes:
        if outcome.kind not in (ANSWERED, REFUSED):
            scene.problems.append(f"{outcome.kind} in overload over {outcome.protocol}: {outcome.detail}")


def deep_json(scene: Scene) -> None:
    """JSON that is nested a hundred thousand times, to every HTTP port."""
    deep = b"[" * 100_000 + b"]" * 100_000
    bodies = (
        b'{"a":' * 100_000, deep, b'{"text_input": %b}' % deep, b'{"messages": %b}' % deep,
        b'{"inputs": [{"name": "text_input", "datatype": "BYTES", "shape": [1], "data": %b}]}' % deep,
    )  # fmt: skip
    for port in (scene.server.ports["http"], scene.server.ports["openai"]):
        for path in (_GENERATE, _CHAT, "/v2/models/triune/infer"):
            for body in bodies:
                _post(scene, port, path, body)


def many_chunks(scene: Scene) -> None:
    """A body of a million chunks of a byte."""
    for port, path in ((scene.server.ports["http"], _GENERATE), (scene.server.ports["openai"], _CHAT)):
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        _send(scene, port, head + b"1\r\n \r\n" * 1_000_000 + b"0\r\n\r\n")


def odd_heads(scene: Scene) -> None:
    """Heads of requests that are long, many, or no heads, and two lengths of one body."""
    start = f"POST {_GENERATE} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode()
    heads = (
        b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(20_000)) + b"\r\n",
        b"\x16\x03\x01" + scene.chance.randbytes(2000),
        start + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /",
        start + b"Content-Length: 99999999999999999999\r\n\r\n{}",
        start + b"Content-Length: -1\r\n\r\n{}",
    )
    for head in heads:
        for name in ("http", "openai", "grpc", "metrics"):
            _send(scene, scene.server.ports[name], head)


def odd_bodies(scene: Scene) -> None:
    """Bodies that are no JSON, or JSON that means nothing: huge shapes, wrong types, broken characters, endless schemas."""
    loop = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
    tensors = {"inputs": [{"name": "text_input", "datatype": "BYTES", "shape": [1 << 62], "data": []}]}
    bodies: Sequence[object] = (
        tensors, {"text_input": "a", "max_tokens": 10**30}, {"text_input": "a", "temperature": float("nan")},
        {"text_input": "\ud800", "max_tokens": 4}, {"text_input": "a" * 1_000_000, "max_tokens": 4},
        {"text_input": ["a"] * 5000},
        {"text_input": "a", "max_tokens": 4, "guided_json": json.dumps(loop)},
        {"text_input": "a", "max_tokens": 4, "stop": ["x"] * 100_000},
        {"text_input": "a", "max_tokens": 4, "logit_bias": json.dumps({str(n): 1 for n in range(200_000)})},
    )  # fmt: skip
    for body in bodies:
        text = json.dumps(body).encode("utf-8", "surrogatepass")
        for path in (_GENERATE, "/v2/models/triune/infer", "/v2/models/ensemble/generate"):
            _post(scene, scene.server.ports["http"], path, text)
    for body in (b"\xff\xfe", b"", b"null", b"1e999999", b'{"messages": "' + scene.chance.randbytes(500) + b'"}'):
        _post(scene, scene.server.ports["http"], _GENERATE, body)
        _post(scene, scene.server.ports["openai"], _CHAT, body)


def heavy_grammar(scene: Scene) -> None:
    """A choice among 900 long alternatives, and a pattern that is costly to follow, beside other people's streams."""
    choices = [f"{'a' * (n % 40)}{n:04d}{'b' * 40}" for n in range(900)]
    asked = (
        {"guided_choice": choices}, {"guided_regex": "(a|aa|aaa|b)*" * 30 + "c"},
        {"guided_grammar": "start: (A | B)* \nA: /(x+x+)+y/\nB: /[^a-z]{1,500}/"},
    )  # fmt: skip

    def one(more: dict[str, object]) -> None:
        body = {"model": "triune", "messages": [{"role": "user", "content": "Choose."}], "max_tokens": 40, **more}
        try:
            reply = post(f"{scene.server.where.openai}{_CHAT}", body, _LIMIT_S)
        except httpx.TimeoutException:
            scene.problems.append(f"hung: no answer within {_LIMIT_S:.0f} s to {next(iter(more))}")
        except httpx.HTTPError as error:
            scene.problems.append(f"cut: {next(iter(more))}: {error!r}")
        else:
            if reply.status_code == 500:
                scene.problems.append(f"error: 500 to {next(iter(more))}: {reply.text[:200]}")

    threads = [threading.Thread(target=one, args=(more,), daemon=True) for more in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * _LIMIT_S)


def odd_datagrams(scene: Scene) -> None:
    """Messages that are none, to every local socket of the server that takes datagrams."""
    taken = 0
    for name in _datagram_sockets(scene):
        address = "\0" + name[1:] if name.startswith("@") else name
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(1)
            for message in (b"", b"x", b"\xff" * 8, b"\0" * 10, scene.chance.randbytes(4000)):
                with suppress(OSError):
                    taken += sender.sendto(message, address) == len(message)
    scene.note(f"{taken} messages")
    if not taken:
        scene.problems.append("nothing met: no socket of the server takes datagrams")
    scene.wait(1.0)


def _datagram_sockets(scene: Scene) -> list[str]:
    """The names of the server's, by what its processes have open."""
    held = set()
    for process in scene.server.family():
        with suppress(OSError):
            for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
                with suppress(OSError):
                    held.add(descriptor.readlink().name)
    rows = [line.split() for line in Path("/proc/net/unix").read_text("utf-8").splitlines()[1:]]
    return sorted({row[7] for row in rows if len(row) == 8 and row[4] == _DATAGRAM and f"socket:[{row[6]}]" in held})


def _post(scene: Scene, port: int, path: str, body: bytes) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    _send(scene, port, f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


def _send(scene: Scene, port: int, data: bytes) -> None:
    """Send it, and wait for whatever comes back first: a byte, or the end. Silence is a hang."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_LIMIT_S) as connection:
            with suppress(BrokenPipeError, ConnectionError):
                connection.sendall(data)
            with suppress(ConnectionError):
                connection.recv(1)
    except TimeoutError:
        scene.problems.append(f"hung: no answer within {_LIMIT_S:.0f} s to {data[:60]!r} on port {port}")
    except OSError as error:
        scene.note(f"port {port}: {error}")
