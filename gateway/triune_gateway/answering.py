"""Makes the answer to one request: runs its calls at once and sends what comes, whole or as events.

The server's pieces are always streamed to here, so a client that goes away is noticed at once, whatever it asked for: its calls
are cancelled, which frees their sequences.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from triune_client import AsyncClient, AsyncStream, BadRequest, Chunk, TriuneError
from triune_client.grpc import AsyncGrpcClient

from . import access_log
from .bearer import CLIENT
from .calls import Call
from .errors import ApiError, full, invalid, of_server
from .gates import Gates
from .intake import Intake
from .metrics import Metrics
from .sending import ClientLeft, EventSender, JsonResponse, error_response, while_connected
from .shapes import AnswerShape
from .tracing import passed_on
from .usage import Counts

LOG = logging.getLogger(__name__)
TextClient = AsyncClient | AsyncGrpcClient
_NOT_FOLLOWED = ("unsupported", "too_long")  # the server's codes of what a model cannot do; a wish is left out then
OnChunk = Callable[[int, Chunk], Awaitable[None]]


class Answer(Response):
    """The answer to one request, made while it is sent."""

    def __init__(
        self,
        client: TextClient,
        calls: Sequence[Call],
        shape: AnswerShape,
        metrics: Metrics,
        intake: Intake,
        gates: Gates,
        *,
        stream: bool,
    ) -> None:
        """
        Args:
            calls: at least one, in the order of their choices.
            stream: whether pieces are sent as they come.
        """
        super().__init__()
        self._client, self._calls, self._shape = client, calls, shape
        self._counts, self._metrics, self._intake, self._gates, self._stream = Counts(), metrics, intake, gates, stream
        self._begun = time.monotonic()
        self._seen: set[int] = set()  # choices that something has come of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        access = self._access = access_log.of(scope)
        self._trace = passed_on(scope)
        access.model, access.stream = self._shape.model, self._stream
        work = self._send_events(send) if self._stream else self._send_whole(scope, receive, send)
        try:
            with self._metrics.open_answer(stream=self._stream):
                await while_connected(work, receive)
        except ClientLeft:
            scope["triune.left"] = True  # for whoever counts how requests end
        except ApiError as error:  # nothing has been sent
            access.error = error.code or error.kind
            await error_response(error, scope["path"])(scope, receive, send)
        finally:
            counts = self._counts
            access.prompt_tokens, access.completion_tokens = counts.prompt, counts.completion
            access.cached_tokens, access.reasoning_tokens = counts.cached, counts.reasoning
            self._metrics.count_tokens(counts)

    async def _send_whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def take(index: int, chunk: Chunk) -> None:
            self._count(index, chunk)
            self._shape.take(index, chunk)

        with self._intake.answering():
            await self._run(take)
        await JsonResponse(self._shape.whole(self._counts))(scope, receive, send)

    async def _send_events(self, send: Send) -> None:
        sender = EventSender(send, named=self._shape.named_events)

        async def take(index: int, chunk: Chunk) -> None:
            first = self._count(index, chunk)
            await sender.send(list(self._shape.events(index, chunk, self._counts, first=first)))

        try:
            with self._intake.answering():
                await self._run(take)
            await sender.end(list(self._shape.last_events(self._counts)))
        except ApiError as error:
            if not sender.started:
                raise  # its status can still be told
            self._access.error = error.code or error.kind
            LOG.warning("a stream ended early: %s", error.message)
            await sender.end(list(self._shape.failed_events(error, self._counts)))

    def _count(self, index: int, chunk: Chunk) -> bool:
        """Counts a piece; whether it is the first of its choice."""
        if not self._seen:
            self._sent.taken()
            self._access.first_chunk_s = round(time.monotonic() - self._begun, 6)
            self._metrics.first_chunk(self._access.first_chunk_s, self._access.trace_id)
        if chunk.finish_reason is not None:
            self._access.finish_reasons.append(chunk.finish_reason)
        self._counts.take(chunk)
        first = index not in self._seen
        self._seen.add(index)
        return first

    async def _run(self, on_chunk: OnChunk) -> None:
        """Makes all calls at once; `on_chunk` gets each piece with the number of its choice.

        Raises:
            ApiError: the server is full, or a call failed; the others are cancelled.
        """
        places = sum(call.choices for call in self._calls)
        sent = self._gates.enter(self._client.settings.model, self._trace.get(CLIENT, ""), places)
        if sent is None:
            raise full()
        self._sent = sent
        try:
            await self._run_calls(on_chunk)
        finally:
            sent.ended()

    async def _run_calls(self, on_chunk: OnChunk) -> None:
        streams = [self._open(call) for call in self._calls]
        if not self._calls[0].answers:
            on_chunk = _without_answers(on_chunk)
        firsts = accumulate((call.choices for call in self._calls), initial=0)
        try:
            if len(streams) == 1:  # as almost always: without the cost of a task
                await self._read(0, self._calls[0], streams[0], on_chunk)
                return
            async with asyncio.TaskGroup() as group:
                for first, call, stream in zip(firsts, self._calls, streams, strict=False):  # the last sum is of all
                    group.create_task(self._read(first, call, stream, on_chunk))
        except TriuneError as error:
            raise self._failed(error, self._calls[0]) from error
        except BaseExceptionGroup as group_error:
            cause: BaseException = group_error
            while isinstance(cause, BaseExceptionGroup):
                cause = cause.exceptions[0]
            if isinstance(cause, TriuneError):
                cause = self._failed(cause, self._calls[0])
            raise cause from group_error

    async def _read(self, first: int, call: Call, stream: AsyncStream, on_chunk: OnChunk) -> None:
        """Reads the choices of one call, of which `first` is the number of the first."""
        while True:
            try:
                await _read(first, stream, on_chunk)
                return
            except BadRequest as error:  # which comes before anything is generated
                easier = without_wish(call, error)
                if easier is None:
                    raise self._failed(error, call) from error
            call = easier
            stream = self._open(call)

    def _failed(self, error: TriuneError, call: Call) -> ApiError:
        """What a call's failure is to the client. The gates hear of it, too."""
        self._sent.failed(error.code, error.param)
        return of_server(error, call.fields)

    def _open(self, call: Call) -> AsyncStream:
        return _open(self._client, call, self._request_id(), self._trace)

    def _request_id(self) -> str:
        """A name for a call. The server ends answers by it, so two clients that send one id must not meet."""
        return f"{self._access.request_id}/{uuid.uuid4().hex}"


def without_wish(call: Call, error: TriuneError) -> Call | None:
    """The call without the wish that the model cannot follow, as the server says; None if it says something else."""
    name = error.param
    if error.code not in _NOT_FOLLOWED or name not in call.wishes or name not in call.options:
        return None
    return replace(call, options={other: value for other, value in call.options.items() if other != name})


def _without_answers(on_chunk: OnChunk) -> OnChunk:
    """For calls whose answers nobody wants: of the one token that there must be, nothing is told."""

    async def take(index: int, chunk: Chunk) -> None:
        reason = chunk.finish_reason and ("length" if chunk.finish_reason == "stop" else chunk.finish_reason)
        usage = replace(chunk.usage, output_tokens=0, reasoning_tokens=0)
        await on_chunk(index, replace(chunk, text="", reasoning="", logprobs=(), usage=usage, finish_reason=reason))

    return take


def _open(client: TextClient, call: Call, request_id: str, headers: Mapping[str, str]) -> AsyncStream:
    options: Any = call.options | {"request_id": request_id} | ({"headers": headers} if headers else {})
    try:
        return client.stream(call.prompt, **options) if call.messages is None else client.stream_chat(call.messages, **options)
    except (TypeError, ValueError) as error:  # what the schemas let through does not fit the server's tensors
        raise invalid(f"{error}.") from error


async def _read(first: int, stream: AsyncStream, on_chunk: OnChunk) -> None:
    """Reads the choices of one call, of which `first` is the number of the first."""
    async with stream:
        async for chunk in stream:
            await on_chunk(first + chunk.sequence, chunk)
