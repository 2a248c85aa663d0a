"""The HTTP clients: the only file that speaks to httpx. What the bytes mean is `_wire.py`'s business."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import quote

import httpx

from . import _wire
from ._async import AsyncBaseClient
from ._base import ClientBase
from ._errors import ConnectError, ServerError, StreamBroken, TimeoutError_, TriuneError
from ._flow import CONNECT_PATIENCE_S, Flow
from ._options import Options, Settings
from ._sse import SseDecoder
from ._sync import SyncClient
from ._tls import CaFile, check_tls, trusting, untrusted
from ._types import Chunk, ModelInfo

DEFAULT_URL = "http://localhost:8000"
_JSON = {"content-type": "application/json"}
# A server refuses what it has no room for; a limit here would only make calls wait where nobody sees it.
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=64)


class Client(SyncClient):
    """A blocking client over HTTP. Thread-safe; use it in a `with` statement, or close it.

    Args:
        url: of the server's HTTP port.
        model: name of the ensemble.
        timeout_s: longest silence of the server, None for ever.
        deadline_s: seconds for a whole answer; the server enforces it too.
        max_retries: of what is safe to try again.
        options: sent when a call names none of its own.
        headers: sent with every request.
        ca_file: certificates to trust in place of the public ones, in PEM: of a CA, or the server's own.
        server_name: the name in the server's certificate, where that is not the host of `url`.
        transport: stands in for the network; see `triune_client.testing`.

    Raises:
        TypeError, ValueError: a setting is wrong.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        model: str = Settings.model,
        timeout_s: float | None = Settings.timeout_s,
        deadline_s: float | None = Settings.deadline_s,
        max_retries: int = Settings.max_retries,
        options: Options | None = None,
        headers: Mapping[str, str] | None = None,
        ca_file: CaFile = None,
        server_name: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, model=model, timeout_s=timeout_s, deadline_s=deadline_s, max_retries=max_retries, options=options)
        check_tls(url, ca_file, server_name, "https")

        def name(request: httpx.Request) -> None:
            request.extensions |= _named(server_name)

        self._http = httpx.Client(
            base_url=_checked(url), headers=headers, transport=transport, limits=_LIMITS, verify=trusting(ca_file),
            event_hooks={"request": [name]},
        )  # fmt: skip

    def ready(self) -> bool:
        try:
            return self._request("GET", _model_path(self, "ready")).status_code == 200
        except (ConnectError, StreamBroken, TimeoutError_):
            return False

    def models(self) -> tuple[ModelInfo, ...]:
        return _models(self._request("POST", "/v2/repository/index", content=b"{}"))

    @contextmanager
    def _open(self, flow: Flow) -> Iterator[Iterator[Chunk]]:
        with (
            _translated(self.url, flow),
            self._http.stream(
                "POST",
                _generate_path(flow.call.settings.model, "generate_stream"),
                content=_body(flow),
                headers={**flow.call.settings.headers, **_JSON},
                timeout=_timeout(flow.patience_s()),
            ) as response,
        ):
            if response.status_code != 200:
                response.read()
                raise _refusal(response)
            yield self._chunks(response, flow)

    def _chunks(self, response: httpx.Response, flow: Flow) -> Iterator[Chunk]:
        decoder = SseDecoder()
        for piece in response.iter_bytes():
            yield from _decode(decoder, piece, flow)

    def _infer(self, model: str, call: _wire.Call) -> Mapping[str, Any]:
        body = _wire.to_json(call.request_id, _wire.encode_call(call, deadline_s=None))
        return _outputs(self._request("POST", _generate_path(model, "generate"), content=body))

    def _send_cancel(self, request_id: str, model: str, *, patience_s: float | None) -> None:
        body = _wire.to_json(request_id, _wire.encode_cancel())
        response = self._request("POST", _generate_path(model, "generate"), content=body, patience_s=patience_s)
        if response.status_code != 200:
            raise _wire.with_request(_refusal(response), request_id, "")

    def _request(
        self, method: str, path: str, *, content: bytes | None = None, patience_s: float | None = None
    ) -> httpx.Response:
        timeout = _timeout(patience_s or self.settings.timeout_s)
        with _translated(self.url):
            return self._http.request(method, path, content=content, headers=_JSON, timeout=timeout)

    def _close(self) -> None:
        self._http.close()


class AsyncClient(AsyncBaseClient):
    """An asynchronous client over HTTP, for asyncio and trio. Arguments as for `Client`."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        model: str = Settings.model,
        timeout_s: float | None = Settings.timeout_s,
        deadline_s: float | None = Settings.deadline_s,
        max_retries: int = Settings.max_retries,
        options: Options | None = None,
        headers: Mapping[str, str] | None = None,
        ca_file: CaFile = None,
        server_name: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, model=model, timeout_s=timeout_s, deadline_s=deadline_s, max_retries=max_retries, options=options)
        check_tls(url, ca_file, server_name, "https")

        async def name(request: httpx.Request) -> None:
            request.extensions |= _named(server_name)

        self._http = httpx.AsyncClient(
            base_url=_checked(url), headers=headers, transport=transport, limits=_LIMITS, verify=trusting(ca_file),
            event_hooks={"request": [name]},
        )  # fmt: skip

    async def ready(self) -> bool:
        try:
            return (await self._request("GET", _model_path(self, "ready"))).status_code == 200
        except (ConnectError, StreamBroken, TimeoutError_):
            return False

    async def models(self) -> tuple[ModelInfo, ...]:
        return _models(await self._request("POST", "/v2/repository/index", content=b"{}"))

    @asynccontextmanager
    async def _open(self, flow: Flow) -> AsyncIterator[AsyncIterator[Chunk]]:
        with _translated(self.url, flow):
            async with self._http.stream(
                "POST",
                _generate_path(flow.call.settings.model, "generate_stream"),
                content=_body(flow),
                headers={**flow.call.settings.headers, **_JSON},
                timeout=_timeout(flow.patience_s()),
            ) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise _refusal(response)
                yield self._chunks(response, flow)

    async def _chunks(self, response: httpx.Response, flow: Flow) -> AsyncIterator[Chunk]:
        decoder = SseDecoder()
        async for piece in response.aiter_bytes():
            for chunk in _decode(decoder, piece, flow):
                yield chunk

    async def _infer(self, model: str, call: _wire.Call) -> Mapping[str, Any]:
        body = _wire.to_json(call.request_id, _wire.encode_call(call, deadline_s=None))
        return _outputs(await self._request("POST", _generate_path(model, "generate"), content=body))

    async def _send_cancel(self, request_id: str, model: str, *, patience_s: float | None) -> None:
        body = _wire.to_json(request_id, _wire.encode_cancel())
        response = await self._request("POST", _generate_path(model, "generate"), content=body, patience_s=patience_s)
        if response.status_code != 200:
            raise _wire.with_request(_refusal(response), request_id, "")

    async def _request(
        self, method: str, path: str, *, content: bytes | None = None, patience_s: float | None = None
    ) -> httpx.Response:
        timeout = _timeout(patience_s or self.settings.timeout_s)
        with _translated(self.url):
            return await self._http.request(method, path, content=content, headers=_JSON, timeout=timeout)

    async def _close(self) -> None:
        await self._http.aclose()


def _checked(url: str) -> httpx.URL:
    parsed = httpx.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"url is {url!r}; expected something like {DEFAULT_URL!r}")
    return parsed


def _named(server_name: str | None) -> dict[str, Any]:
    """What a request says of the name that its connection is verified by."""
    return {} if server_name is None else {"sni_hostname": server_name}


def _generate_path(model: str, method: str) -> str:
    return f"/v2/models/{quote(model, safe='')}/{method}"


def _model_path(client: ClientBase, method: str) -> str:
    return _generate_path(client.settings.model, method)


_TRACE = ("traceparent", "tracestate")  # Triton 24.10 hands no header of these requests on, but what is in their body


def _body(flow: Flow) -> bytes:
    sent = ((name.lower(), value) for name, value in flow.call.settings.headers.items())
    trace = [_wire.Tensor(name=name, datatype="BYTES", values=[value]) for name, value in sent if name in _TRACE]
    return _wire.to_json(flow.call.request_id, [*_wire.encode_call(flow.call, deadline_s=flow.begin()), *trace])


def _timeout(patience_s: float | None) -> httpx.Timeout:
    connect = CONNECT_PATIENCE_S if patience_s is None else min(patience_s, CONNECT_PATIENCE_S)
    return httpx.Timeout(patience_s, connect=connect)


def _decode(decoder: SseDecoder, piece: bytes, flow: Flow) -> Iterator[Chunk]:
    try:
        events = decoder.feed(piece)
    except UnicodeDecodeError as error:
        raise StreamBroken(f"the server sent an event that is not UTF-8: {error}") from error
    for data in events:
        yield _wire.chunk_of_event(data, flow.call.request_id)


def _refusal(response: httpx.Response) -> TriuneError:
    retry_after = response.headers.get("retry-after")
    return _wire.error_of_response(response.status_code, response.content, retry_after, now=time.time())


def _outputs(response: httpx.Response) -> Mapping[str, Any]:
    if response.status_code != 200:
        raise _refusal(response)
    try:
        found: Any = response.json()
    except json.JSONDecodeError as error:
        raise ServerError(f"the server sent outputs that are not JSON: {response.text[:200]!r}") from error
    return found if isinstance(found, dict) else {}


def _models(response: httpx.Response) -> tuple[ModelInfo, ...]:
    if response.status_code != 200:
        raise _refusal(response)
    try:
        index: Any = response.json()
    except json.JSONDecodeError as error:
        raise ServerError(f"the server sent a model index that is not JSON: {response.text[:200]!r}") from error
    return _wire.models_of_index(index)


@contextmanager
def _translated(url: str, flow: Flow | None = None) -> Iterator[None]:
    """Turns what httpx raises into this library's errors."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        said = untrusted(url, str(error)) or f"nothing answers at {url}: {str(error) or 'no connection in time'}"
        raise ConnectError(said) from error
    except httpx.TimeoutException as error:
        raise (flow.timed_out() if flow else TimeoutError_(f"no answer from {url} in time")) from error
    except httpx.TransportError as error:
        reason = str(error) or type(error).__name__
        raise StreamBroken(f"the connection to {url} broke: {reason}") from error
    except httpx.RequestError as error:
        raise ServerError(f"{url} did not answer as a Triton server does: {error}") from error
