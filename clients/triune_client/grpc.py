"""The gRPC clients: the only file that speaks to grpc. One server stream per request, so leaving one cancels it alone.

Needs the extra: `pip install "triune-client[grpc]"`. What the tensors mean is `_wire.py`'s business.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

try:
    import grpc
    import grpc.aio
    from tritonclient.grpc import service_pb2, service_pb2_grpc
except ImportError as missing:
    raise ImportError('the gRPC clients need an extra: pip install "triune-client[grpc]"') from missing

from . import _wire
from ._async import AsyncBaseClient
from ._base import ClientBase
from ._errors import BadRequest, ConnectError, Overloaded, StreamBroken, TimeoutError_, TriuneError, class_of_grpc, from_message
from ._flow import DEADLINE_GRACE_S, Flow
from ._options import Options, Settings
from ._sync import SyncClient
from ._tls import CaFile, check_tls, roots, untrusted
from ._types import Chunk, ModelInfo
from ._watchdog import Watchdog

DEFAULT_URL = "localhost:8001"
_CHANNEL: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),  # what is safe to retry is decided in one place, `_flow.py`
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),  # a server that comes back is seen within two seconds
    ("grpc.use_local_subchannel_pool", 1),
)
_NO_CONNECTION = re.compile(r"failed to connect|connection refused|name resolution|resolution failed|dns", re.I)
_BROKEN = re.compile(r"socket closed|connection reset|broken pipe|goaway|stream removed|keepalive|transport", re.I)
_RESET = re.compile(r"rst_stream|stream removed", re.I)


class GrpcClient(SyncClient):
    """A blocking client over gRPC. Thread-safe; use it in a `with` statement, or close it.

    Args:
        url: host and port of the server's gRPC port; "grpcs://host:port" for TLS.
        model: name of the ensemble.
        timeout_s: longest silence of the server, None for ever.
        deadline_s: seconds for a whole answer; the server enforces it too.
        max_retries: of what is safe to try again.
        options: sent when a call names none of its own.
        headers: metadata sent with every request; keys in lower case.
        ca_file, server_name: as of `Client`.

    Raises:
        TypeError, ValueError: a setting is wrong.
    """

    def __init__(
        self, url: str = DEFAULT_URL, *, model: str = Settings.model, timeout_s: float | None = Settings.timeout_s,
        deadline_s: float | None = Settings.deadline_s, max_retries: int = Settings.max_retries,
        options: Options | None = None, headers: Mapping[str, str] | None = None, ca_file: CaFile = None,
        server_name: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(url, model=model, timeout_s=timeout_s, deadline_s=deadline_s, max_retries=max_retries, options=options)
        self._channel = _channel(grpc, url, ca_file, server_name)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._metadata = tuple((headers or {}).items())

    def ready(self) -> bool:
        try:
            with _translated(self.url):
                return bool(self._stub.ModelReady(_ready_request(self), **self._unary()).ready)
        except TriuneError:
            return False

    def models(self) -> tuple[ModelInfo, ...]:
        with _translated(self.url):
            return _models(self._stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), **self._unary()))

    @contextmanager
    def _open(self, flow: Flow) -> Iterator[Iterator[Chunk]]:
        request = _request(flow)
        stream = self._stub.ModelStreamInfer(iter((request,)), **_stream_arguments(flow, self._metadata))
        watchdog = Watchdog(flow, stream.cancel)
        try:
            with _translated(self.url, flow, watchdog):
                yield _chunks(stream, flow, watchdog)
        finally:
            watchdog.stop()
            stream.cancel()

    def _infer(self, model: str, call: _wire.Call) -> Mapping[str, Any]:
        with _translated(self.url):
            return _outputs(self._stub.ModelInfer(_unary_request(model, call), **self._unary()))

    def _send_cancel(self, request_id: str, model: str, *, patience_s: float | None) -> None:
        request = _infer_request(model, request_id, _wire.encode_cancel())
        with _translated(self.url):
            for response in self._stub.ModelStreamInfer(iter((request,)), timeout=patience_s, metadata=self._metadata):
                _check(response)

    def _unary(self) -> dict[str, Any]:
        return {"timeout": self.settings.timeout_s, "metadata": self._metadata}

    def _close(self) -> None:
        self._channel.close()


class AsyncGrpcClient(AsyncBaseClient):
    """An asynchronous client over gRPC, for asyncio. Arguments as for `GrpcClient`."""

    def __init__(
        self, url: str = DEFAULT_URL, *, model: str = Settings.model, timeout_s: float | None = Settings.timeout_s,
        deadline_s: float | None = Settings.deadline_s, max_retries: int = Settings.max_retries,
        options: Options | None = None, headers: Mapping[str, str] | None = None, ca_file: CaFile = None,
        server_name: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(url, model=model, timeout_s=timeout_s, deadline_s=deadline_s, max_retries=max_retries, options=options)
        self._channel = _channel(grpc.aio, url, ca_file, server_name)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._metadata = tuple((headers or {}).items())

    async def ready(self) -> bool:
        try:
            with _translated(self.url):
                return bool((await self._stub.ModelReady(_ready_request(self), **self._unary())).ready)
        except TriuneError:
            return False

    async def models(self) -> tuple[ModelInfo, ...]:
        with _translated(self.url):
            return _models(await self._stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), **self._unary()))

    @asynccontextmanager
    async def _open(self, flow: Flow) -> AsyncIterator[AsyncIterator[Chunk]]:
        request = _request(flow)
        stream = self._stub.ModelStreamInfer(iter((request,)), **_stream_arguments(flow, self._metadata))
        try:
            with _translated(self.url, flow):
                yield self._chunks(stream, flow)
        finally:
            stream.cancel()

    async def _chunks(self, stream: Any, flow: Flow) -> AsyncIterator[Chunk]:
        responses = aiter(stream)
        while True:
            try:
                # Not anyio's: grpc.aio turns its cancellation into one that it does not know again.
                async with asyncio.timeout(flow.patience_s()):
                    response = await anext(responses, None)
            except TimeoutError:
                raise flow.timed_out() from None
            if response is None:
                return
            if (chunk := _decode(response, flow)) is not None:
                yield chunk

    async def _infer(self, model: str, call: _wire.Call) -> Mapping[str, Any]:
        with _translated(self.url):
            return _outputs(await self._stub.ModelInfer(_unary_request(model, call), **self._unary()))

    async def _send_cancel(self, request_id: str, model: str, *, patience_s: float | None) -> None:
        request = _infer_request(model, request_id, _wire.encode_cancel())
        stream = self._stub.ModelStreamInfer(iter((request,)), timeout=patience_s, metadata=self._metadata)
        with _translated(self.url):
            async for response in stream:
                _check(response)

    def _unary(self) -> dict[str, Any]:
        return {"timeout": self.settings.timeout_s, "metadata": self._metadata}

    async def _close(self) -> None:
        await self._channel.close()


def _chunks(stream: Iterable[Any], flow: Flow, watchdog: Watchdog) -> Iterator[Chunk]:
    for response in stream:
        watchdog.served()
        if (chunk := _decode(response, flow)) is not None:
            yield chunk
        watchdog.waiting()


def _channel(module: Any, url: str, ca_file: CaFile, server_name: str | None) -> Any:
    scheme, _, address = url.rpartition("://")
    if scheme not in ("", "grpc", "grpcs") or not re.search(r":\d+$", address):
        raise ValueError(f"url is {url!r}; expected something like {DEFAULT_URL!r} or 'grpcs://host:8001'")
    check_tls(url, ca_file, server_name, "grpcs")
    if scheme == "grpcs":
        name = (("grpc.ssl_target_name_override", server_name),) if server_name is not None else ()
        return module.secure_channel(address, grpc.ssl_channel_credentials(roots(ca_file)), options=(*_CHANNEL, *name))
    return module.insecure_channel(address, options=_CHANNEL)


def _stream_arguments(flow: Flow, of_client: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    own = ((name.lower(), value) for name, value in flow.call.settings.headers.items())
    return {"timeout": _call_timeout(flow), "metadata": (*of_client, *own)}


def _ready_request(client: ClientBase) -> Any:
    return service_pb2.ModelReadyRequest(name=client.settings.model)


def _request(flow: Flow) -> Any:
    tensors = _wire.encode_call(flow.call, deadline_s=flow.begin())
    return _infer_request(flow.call.settings.model, flow.call.request_id, tensors)


def _infer_request(model: str, request_id: str, tensors: Iterable[_wire.Tensor]) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    for tensor in tensors:
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=[len(tensor.values)])
        request.raw_input_contents.append(_wire.pack(tensor.datatype, tensor.values))
    return request


def _unary_request(model: str, call: _wire.Call) -> Any:
    request = _infer_request(model, call.request_id, _wire.encode_call(call, deadline_s=None))
    request.parameters.clear()  # what ends a stream has no meaning here, and is refused
    return request


def _call_timeout(flow: Flow) -> float | None:
    remaining_s = flow.remaining_s()
    return None if remaining_s is None else remaining_s + DEADLINE_GRACE_S


def _check(response: Any) -> None:
    """Raises the error in a response.

    It has a text and no status. There is a header that asks for one, `triton_grpc_error`, which must not be sent:
    Triton 24.10 dies of a segmentation fault when a model ends a request of such a stream after an error.
    """
    if response.error_message:
        raise from_message(response.error_message, BadRequest)


def _decode(response: Any, flow: Flow) -> Chunk | None:
    """The chunk in a response; None for the empty one that ends a stream."""
    _check(response)
    answer = response.infer_response
    if not answer.outputs:
        return None
    return _wire.chunk_of_outputs(_outputs(answer), flow.call.request_id)


def _outputs(answer: Any) -> dict[str, list[Any]]:
    pairs = zip(answer.outputs, answer.raw_output_contents, strict=True)
    return {output.name: _wire.unpack(output.datatype, raw) for output, raw in pairs}


def _models(response: Any) -> tuple[ModelInfo, ...]:
    known = ("name", "version", "state", "reason")
    return _wire.models_of_index([{key: getattr(model, key) for key in known} for model in response.models])


@contextmanager
def _translated(url: str, flow: Flow | None = None, watchdog: Watchdog | None = None) -> Iterator[None]:
    """Turns what grpc raises into this library's errors."""
    try:
        yield
    except grpc.RpcError as error:
        if flow and watchdog and watchdog.fired:
            raise flow.timed_out() from error
        raise _error(url, error, flow) from error


def _error(url: str, error: Any, flow: Flow | None) -> TriuneError:
    code = error.code().name
    details = error.details() or code
    if code == "UNAVAILABLE" and _NO_CONNECTION.search(details):
        return ConnectError(untrusted(url, details) or f"nothing answers at {url}: {details}", status=code)
    if (code == "UNAVAILABLE" and _BROKEN.search(details)) or (code in ("INTERNAL", "UNKNOWN") and _RESET.search(details)):
        return StreamBroken(f"the connection to {url} broke: {details}", status=code)
    kind = class_of_grpc(code)
    if kind is TimeoutError_:
        return flow.timed_out() if flow else TimeoutError_(f"no answer from {url} in time", status=code)
    found = from_message(details, kind, status=code)  # a unary call has the server's own words in its details
    if isinstance(found, Overloaded):
        for key, value in error.trailing_metadata() or ():
            if key == "retry-after":
                found.retry_after_s = _wire.parse_retry_after(str(value), now=time.time())
    return found
