"""Stand-ins shared by the client tests: an HTTP socket and a gRPC server that play scripts, and one way to call
sync and async clients. Run: pytest tests/clients"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor, triton_to_np_dtype

from triune_client import AsyncClient, Client, Completion
from triune_client.grpc import AsyncGrpcClient, GrpcClient

Script = list[bytes | float | str]


class ScriptedServer:
    """Answers the n-th connection with the n-th script: bytes are sent, a float is slept, "watch" waits for the client
    to leave, "reset" drops the connection hard. Cancel requests are recorded and answered beside the script."""

    def __init__(self, scripts: list[Script]) -> None:
        self.scripts = list(scripts)
        self.requests: list[dict[str, Any]] = []
        self.cancelled: list[str] = []
        self.left = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve_one, args=(connection,), daemon=True).start()

    def _serve_one(self, connection: socket.socket) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client left in the middle of a script
            self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            length = 0
            while (line := lines.readline().strip().lower()) != b"":
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            body = json.loads(lines.read(length) or b"{}")
            if body.get("cancel"):
                self.cancelled.append(body["id"])
                connection.sendall(response(200, b'{"finish_reason":"cancelled"}'))
                return
            self.requests.append(body)
            for action in self.scripts.pop(0):
                if isinstance(action, bytes):
                    connection.sendall(action)
                elif isinstance(action, float):
                    time.sleep(action)
                elif action == "watch":
                    connection.settimeout(10)
                    assert connection.recv(1) == b"", "the client sent more instead of leaving"
                    self.left.set()
                elif action == "reset":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    return


def response(status: int, body: bytes, *headers: str) -> bytes:
    """A whole HTTP response that closes its connection."""
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", "connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def sse_head() -> bytes:
    """The head of an event stream that lasts until the connection closes."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def event(text: str, reason: str = "", **more: Any) -> bytes:
    return b"data: " + json.dumps({"text_output": text, "finish_reason": reason, **more}).encode() + b"\n\n"


@pytest.fixture
def scripted() -> Iterator[Callable[[list[Script]], ScriptedServer]]:
    servers: list[ScriptedServer] = []

    def start(scripts: list[Script]) -> ScriptedServer:
        servers.append(ScriptedServer(scripts))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def wire_bytes() -> dict[str, Callable[..., bytes]]:
    return {"response": response, "sse_head": sse_head, "event": event}


Generate = Callable[..., Completion]


def _generate_sync(*args: Any, prompt: str = "hi", call: dict[str, Any] | None = None, **client: Any) -> Completion:
    with Client(*args, **client) as opened:
        return opened.generate(prompt, **(call or {}))


def _generate_async(*args: Any, prompt: str = "hi", call: dict[str, Any] | None = None, **client: Any) -> Completion:
    async def go() -> Completion:
        async with AsyncClient(*args, **client) as opened:
            return await opened.generate(prompt, **(call or {}))

    return asyncio.run(go())


@pytest.fixture(params=[_generate_sync, _generate_async], ids=["sync", "async"])
def generate(request: pytest.FixtureRequest) -> Generate:
    """`generate(url or nothing, prompt=..., call=options, **client settings)` through either HTTP client."""
    chosen: Generate = request.param
    return chosen


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once."""
    monkeypatch.setattr("triune_client._flow._FIRST_PAUSE_S", 0.0)


# tritonclient's own NumPy helpers read and write the tensors: no code shared with the clients.
OUTPUTS = {
    "text_output": "BYTES", "finish_reason": "BYTES", "stop_reason": "BYTES", "logprobs": "BYTES", "chunk_index": "INT32",
    "sequence_index": "INT32",
    "num_input_tokens": "UINT32", "num_output_tokens": "UINT32", "request_key": "INT64",
    "reasoning_output": "BYTES", "num_reasoning_tokens": "UINT32", "tool_format": "BYTES",
}  # fmt: skip


def answer(**outputs: Any) -> Any:
    """One response of the ensemble; without outputs, the empty final one."""
    response = service_pb2.ModelStreamInferResponse()
    for name, value in outputs.items():
        datatype = OUTPUTS[name]
        response.infer_response.outputs.add(name=name, datatype=datatype, shape=[1])
        if datatype == "BYTES":
            raw = serialize_byte_tensor(np.array([value.encode()], dtype=np.object_)).item()
        else:
            raw = np.array([value], triton_to_np_dtype(datatype)).tobytes()
        response.infer_response.raw_output_contents.append(raw)
    response.infer_response.parameters["triton_final_response"].bool_param = not outputs
    return response


def chunk(text: str, reason: str = "", **more: Any) -> Any:
    return answer(text_output=text, finish_reason=reason, **more)


def decoded(request: Any) -> dict[str, Any]:
    """The inputs of a request by name; each must have the shape its values have."""
    inputs: dict[str, Any] = {"id": request.id, "model": request.model_name}
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        if tensor.datatype == "BYTES":
            values = [item.decode() for item in deserialize_bytes_tensor(raw)]
        else:
            values = np.frombuffer(raw, triton_to_np_dtype(tensor.datatype)).tolist()
        assert list(tensor.shape) == [len(values)]
        inputs[tensor.name] = values
    return inputs


class GrpcServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers the n-th request of `ModelStreamInfer` with the n-th script: responses, a status to end with, or "silence"."""

    answer = staticmethod(answer)
    chunk = staticmethod(chunk)

    def __init__(self) -> None:
        self.scripts: list[list[Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.metadata: list[dict[str, str]] = []
        self.cancelled: list[str] = []
        self.left = threading.Event()
        self._cancel_seen = threading.Event()
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.url = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        self._cancel_seen.set()
        self._server.stop(0).wait()

    def ModelReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ModelReadyResponse(ready=request.name == "triune")

    def RepositoryIndex(self, request: Any, context: Any) -> Any:
        response = service_pb2.RepositoryIndexResponse()
        response.models.add(name="triune", version="1", state="READY")
        return response

    def ModelStreamInfer(self, requests: Any, context: Any) -> Iterator[Any]:
        (request,) = requests
        inputs = decoded(request)
        if "cancel" in inputs:
            self.cancelled.append(request.id)
            self._cancel_seen.set()
            yield chunk("", "cancelled")
            return
        self.requests.append(inputs)
        self.metadata.append({item.key: item.value for item in context.invocation_metadata()})
        context.add_callback(self.left.set)
        for action in self.scripts.pop(0):
            if action == "silence":
                self._cancel_seen.wait(10)
            elif isinstance(action, tuple):
                code, details, trailing = action
                context.set_trailing_metadata(trailing)
                context.abort(code, details)
            else:
                yield action


@pytest.fixture
def grpc_server() -> Iterator[GrpcServer]:
    started = GrpcServer()
    yield started
    started.stop()


def _generate_grpc(url: str, call: dict[str, Any] | None = None, **client: Any) -> Completion:
    with GrpcClient(url, **client) as opened:
        return opened.generate("hi", **(call or {}))


def _generate_async_grpc(url: str, call: dict[str, Any] | None = None, **client: Any) -> Completion:
    async def go() -> Completion:
        async with AsyncGrpcClient(url, **client) as opened:
            return await opened.generate("hi", **(call or {}))

    return asyncio.run(go())


@pytest.fixture(params=[_generate_grpc, _generate_async_grpc], ids=["sync", "async"])
def grpc_generate(request: pytest.FixtureRequest) -> Generate:
    chosen: Generate = request.param
    return chosen
