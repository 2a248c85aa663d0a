"""The blocking half: streams, and the client methods built on them. How bytes travel is up to the subclass."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self, Unpack

from . import _wire
from ._base import ClientBase
from ._errors import Cancelled, TimeoutError_, TriuneError
from ._flow import CANCEL_PATIENCE_S, Flow
from ._options import CallParams, Message
from ._types import Chunk, Completion, ModelInfo, Tokens
from ._wire import Call


class Stream:
    """An answer as it arrives: iterate over its chunks. The request is sent at the first of them.

    Use it in a `with` statement: leaving early frees the request's memory on the server.
    """

    def __init__(self, client: SyncClient, flow: Flow) -> None:
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

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        """The next chunk.

        Raises:
            TriuneError: the call failed; see the tree in `triune_client.TriuneError`'s module.
        """
        self._reading = True
        try:
            return next(self._chunks)
        finally:
            self._reading = False

    def cancel(self) -> None:
        """Aborts the request on the server and ends the stream. May be called from another thread."""
        self._client._leave(self._flow)
        # A reader that waits in another thread is woken by the server's last chunk.
        if not self._reading:
            self.close()

    def close(self) -> None:
        """Leaves the stream; if the answer has not ended, the request is aborted on the server."""
        self._chunks.close()
        self._client._leave(self._flow)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class SyncClient(ClientBase, ABC):
    """What can be asked of a server, blocking. Thread-safe."""

    def generate(self, prompt: str | Sequence[int], **params: Unpack[CallParams]) -> Completion:
        """Completes a raw prompt: a text, or ids of the model's own tokens.

        Raises:
            Cancelled: the request was cancelled before its end.
            TriuneError: the call failed in another way.
            TypeError, ValueError: an argument is wrong; nothing was sent.
        """
        return _read(Stream(self, self._flow_of_prompt(prompt, params, whole=True)))

    def stream(self, prompt: str | Sequence[int], **params: Unpack[CallParams]) -> Stream:
        """Completes a raw prompt, a text or token ids, chunk by chunk.

        Raises:
            TypeError, ValueError: an argument is wrong; nothing was sent.
        """
        return Stream(self, self._flow_of_prompt(prompt, params))

    def chat(self, messages: str | Sequence[Message], **params: Unpack[CallParams]) -> Completion:
        """Answers a conversation, or a single user message, through the model's own template. Raises as `generate`."""
        return _read(Stream(self, self._flow_of_chat(messages, params, whole=True)))

    def stream_chat(self, messages: str | Sequence[Message], **params: Unpack[CallParams]) -> Stream:
        """Answers a conversation, chunk by chunk. Raises as `stream`."""
        return Stream(self, self._flow_of_chat(messages, params))

    def tokenize(self, prompt: str | Sequence[int], **params: Unpack[CallParams]) -> Tokens:
        """The tokens of a raw prompt, as `generate` would send them to the model.

        Raises:
            TriuneError: the call failed.
            TypeError, ValueError: an argument is wrong; nothing was sent.
        """
        return _wire.tokens_of_outputs(self._infer(self.settings.tokenizer, self._call_of_prompt(prompt, params)))

    def tokenize_chat(self, messages: str | Sequence[Message], **params: Unpack[CallParams]) -> Tokens:
        """The tokens of a conversation, as the model's own template renders it. Raises as `tokenize`."""
        return _wire.tokens_of_outputs(self._infer(self.settings.tokenizer, self._call_of_chat(messages, params)))

    def cancel(self, request_id: str) -> None:
        """Aborts the running request of this id; whoever reads it gets the finish reason "cancelled".

        Raises:
            TriuneError: the server could not be told.
        """
        self._send_cancel(request_id, self.settings.model, patience_s=self.settings.timeout_s)

    @abstractmethod
    def ready(self) -> bool:
        """Whether the server answers and has the model loaded."""

    @abstractmethod
    def models(self) -> tuple[ModelInfo, ...]:
        """The models the server knows.

        Raises:
            TriuneError: the call failed.
        """

    def close(self) -> None:
        """Closes the connections, unless this client was derived from another."""
        if self._owns_connections:
            self._closed.set()
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _leave(self, flow: Flow) -> None:
        if flow.leave() and not self._closed.is_set():
            # The closed connection tells the server too, later: failing to say it twice is no error.
            with contextlib.suppress(TriuneError):
                self._send_cancel(flow.call.request_id, flow.call.settings.model, patience_s=CANCEL_PATIENCE_S)

    @abstractmethod
    def _open(self, flow: Flow) -> AbstractContextManager[Iterator[Chunk]]:
        """Sends the call once. Leaving the context closes its connection."""

    @abstractmethod
    def _infer(self, model: str, call: Call) -> Mapping[str, Any]:
        """Asks a model that gives one response; its outputs by name."""

    @abstractmethod
    def _send_cancel(self, request_id: str, model: str, *, patience_s: float | None) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...


def _run(client: SyncClient, flow: Flow) -> Generator[Chunk, None, None]:
    # Not a method: a stream that nobody holds any more must be freed, and so left, at once.
    while True:
        try:
            with client._open(flow) as chunks:
                for chunk in chunks:
                    yield from flow.receive(chunk)
                flow.end()
            return
        except TriuneError as error:
            if isinstance(error, TimeoutError_):
                client._leave(flow)  # the server may still be at it
            pause_s = flow.retry_pause_s(error)
            if pause_s is None:
                return
        except BaseException:  # the reader left, by an interrupt too
            client._leave(flow)
            raise
        time.sleep(pause_s)


def _read(stream: Stream) -> Completion:
    with stream:
        for _ in stream:
            pass
    completion = stream.completion
    if completion.finish_reason == "cancelled":
        raise Cancelled("the request was cancelled before its end", request_id=completion.request_id, partial=completion.text)
    return completion
