"""The asynchronous half: streams, and the client methods built on them. How bytes travel is up to the subclass.

The shape of `_sync.py`; whatever is decided is decided in `_flow.py`.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, Unpack

import anyio

from . import _wire
from ._base import ClientBase
from ._errors import Cancelled, TimeoutError_, TriuneError
from ._flow import CANCEL_PATIENCE_S, Flow
from ._options import CallParams, Message
from ._types import Chunk, Completion, ModelInfo, Tokens
from ._wire import Call


class AsyncStream:
    """An answer as it arrives: iterate over its chunks. The request is sent at the first of them.

    Use it in a `with` statement: leaving early frees the request's memory on the server.
    """

    def __init__(self, client: AsyncBaseClient, flow: Flow) -> None:
        self._client = client
        self._flow = flow
        self._chunks = _run(client, flow)
        self._reading = False

    @property
    def request_id(self) -> str:
        return self._flow.call.request_id

    @property
    def text(self) -> str:
        """The text so far."""
        return self._flow.text

    @property
    def reasoning(self) -> str:
        """The thinking so far."""
        return self._flow.reasoning

    @property
    def completion(self) -> Completion:
        """The whole answer. A stream that was left early has the finish reason "cancelled".

        Raises:
            RuntimeError: the stream has neither ended nor been closed.
        """
        return self._flow.completion()

    @property
    def completions(self) -> tuple[Completion, ...]:
        """All answers, where the option `n` asked for several. Raises as `completion`."""
        return self._flow.completions()

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        """The next chunk.

        Raises:
            TriuneError: the call failed; see the tree in `triune_client.TriuneError`'s module.
        """
        self._reading = True
        try:
            return await anext(self._chunks)
        finally:
            self._reading = False

    async def cancel(self) -> None:
        """Aborts the request on the server and ends the stream. May be called from another task."""
        await self._client._leave(self._flow)
        # A reader that waits in another task is woken by the server's last chunk.
        if not self._reading:
            await self.close()

    async def close(self) -> None:
        """Leaves the stream; if the answer has not ended, the request is aborted on the server."""
        await self._chunks.aclose()
        await self._client._leave(self._flow)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class AsyncBaseClient(ClientBase, ABC):
    """What can be asked of a server, asynchronously. For one event loop."""

    async def generate(self, prompt: str | Sequence[int], **params: Unpack[CallParams]) -> Completion:
        """Completes a raw prompt: a text, or ids of the model's own tokens.

        Raises:
            Cancelled: the request was cancelled before its end.
            TriuneError: the call failed in another way.
            TypeError, ValueError: an argument is wrong; nothing was sent.
        """
        return await _read(AsyncStream(self, self._flow_of_prompt(prompt, params, whole=True)))

    def stream(self, prompt: str | Sequence[int], **params: Unpack[CallParams]) -> AsyncStream:
        """Completes a raw prompt, a text or token ids, chunk by chunk.

        Raises:
            TypeError, ValueError: an argument is wrong; nothing was sent.
        """
        return AsyncStream(self, self._flow_of_prompt(prompt, params))

    async def chat(self, messages: str | Sequence[Message], **params: Unpack[CallParams]) -> Completion:
        """Answers a conversation, or a single user message, through the model's own template. Raises as `generate`."""
        return await _read(AsyncStream(self, self._flow_of_chat(messages, params, whole=True)))

    def stream_chat(self, messages: str | Sequence[Message], **params: Unpack[CallParams]) -> AsyncStream:
        """Answers a conversation, chunk by chunk. Raises as `stream`."""
        return AsyncStream(self, self._flow_of_chat(messages, params))

    async def tokenize(self, prompt: str | Sequence[int], **params: Unpack[CallParams]) -> Tokens:
        """The tokens of a raw prompt, as `generate` would send them to the model.

        Raises:
            TriuneError: the call failed.
            TypeError, ValueError: an argument is wrong; nothing was sent.
        """
        return _wire.tokens_of_outputs(await self._infer(self.settings.tokenizer, self._call_of_prompt(prompt, params)))

    async def tokenize_chat(self, messages: str | Sequence[Message], **params: Unpack[CallParams]) -> Tokens:
        """The tokens of a conversation, as the model's own template renders it. Raises as `tokenize`."""
        return _wire.tokens_of_outputs(await self._infer(self.settings.tokenizer, self._call_of_chat(messages, params)))

    async def cancel(self, request_id: str) -> None:
        """Aborts the running request of this id; whoever reads it gets the finish reason "cancelled".

        Raises:
            TriuneError: the server could not be told.
        """
        await self._send_cancel(request_id, self.settings.model, patience_s=self.settings.timeout_s)

    @abstractmethod
    async def ready(self) -> bool:
        """Whether the server answers and has the model loaded."""

    @abstractmethod
    async def models(self) -> tuple[ModelInfo, ...]:
        """The models the server knows.

        Raises:
            TriuneError: the call failed.
        """

    async def close(self) -> None:
        """Closes the connections, unless this client was derived from another."""
        if self._owns_connections:
            self._closed.set()
            await self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _leave(self, flow: Flow) -> None:
        if flow.leave() and not self._closed.is_set():
            # The closed connection tells the server too, later: failing to say it twice is no error.
            # Shielded: it is sent even when the reader's task is being cancelled.
            with contextlib.suppress(TriuneError), anyio.CancelScope(shield=True):
                await self._send_cancel(flow.call.request_id, flow.call.settings.model, patience_s=CANCEL_PATIENCE_S)

    @abstractmethod
    def _open(self, flow: Flow) -> AbstractAsyncContextManager[AsyncIterator[Chunk]]:
        """Sends the call once. Leaving the context closes its connection."""

    @abstractmethod
    async def _infer(self, model: str, call: Call) -> Mapping[str, Any]:
        """Asks a model that gives one response; its outputs by name."""

    @abstractmethod
    async def _send_cancel(self, request_id: str, model: str, *, patience_s: float | None) -> None: ...

    @abstractmethod
    async def _close(self) -> None: ...


async def _run(client: AsyncBaseClient, flow: Flow) -> AsyncGenerator[Chunk]:
    # Not a method: a stream that nobody holds any more must be freed, and so left, at once.
    while True:
        try:
            async with client._open(flow) as chunks:
                async for chunk in chunks:
                    for piece in flow.receive(chunk):
                        yield piece
                flow.end()
            return
        except TriuneError as error:
            if isinstance(error, TimeoutError_):
                await client._leave(flow)  # the server may still be at it
            pause_s = flow.retry_pause_s(error)
            if pause_s is None:
                return
        except BaseException:  # the reader left, by an interrupt too
            await client._leave(flow)
            raise
        await anyio.sleep(pause_s)


async def _read(stream: AsyncStream) -> Completion:
    async with stream:
        async for _ in stream:
            pass
    completion = stream.completion
    if completion.finish_reason == "cancelled":
        raise Cancelled("the request was cancelled before its end", request_id=completion.request_id, partial=completion.text)
    return completion
