"""The course of one call: when to try again, how long to wait, what has come back. Does no I/O; reads one clock."""

from __future__ import annotations

import random
import time
from dataclasses import replace

from . import _structured
from ._errors import Cancelled, ConnectError, InvalidAnswer, Overloaded, StreamBroken, TimeoutError_, TriuneError
from ._tools import Found, ToolCall, ToolCallParser
from ._types import Chunk, Completion, FinishReason, Usage
from ._wire import Call, with_request

CONNECT_PATIENCE_S = 10.0
CANCEL_PATIENCE_S = 1.0  # for the cancel that is sent when an answer is left early
DEADLINE_GRACE_S = 1.0  # the server ends an answer at its deadline itself; wait this much longer for its word
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 8.0
_LONGEST_RETRY_AFTER_S = 60.0


class Flow:
    """State of one call over all its attempts; used by one stream, sync or async alike."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.last: Chunk | None = None
        self._texts: list[str] = []
        self._reasonings: list[str] = []
        self.left = False  # the reader does not want the rest
        self.started = time.monotonic()
        self._first_chunk_s: float | None = None
        self._last_chunk_s = 0.0
        self._retries = 0
        self._sent = False
        self._usage = Usage()
        self._logprobs: list[object] = []
        self._prompt_logprobs: tuple[object, ...] = ()
        self._parser: ToolCallParser | None = None
        self._calls: list[ToolCall] = []

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._texts)

    @property
    def reasoning(self) -> str:
        """The thinking so far."""
        return "".join(self._reasonings)

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the answer ended; None while it has not."""
        return self.last.finish_reason if self.last else None

    def remaining_s(self) -> float | None:
        """Seconds until the deadline, None without one.

        Raises:
            TimeoutError_: it has passed.
        """
        deadline_s = self.call.settings.deadline_s
        if deadline_s is None:
            return None
        remaining = deadline_s - self._elapsed_s()
        if remaining <= 0:
            raise self.timed_out()
        return remaining

    def begin(self) -> float | None:
        """Starts an attempt; returns the seconds left to the deadline, None without one."""
        remaining = self.remaining_s()
        self._sent = True
        return remaining

    def patience_s(self) -> float | None:
        """Seconds to wait for the next piece before giving up, None for ever."""
        settings = self.call.settings
        if settings.deadline_s is None:
            return settings.timeout_s
        left = max(0.0, settings.deadline_s - self._elapsed_s() + DEADLINE_GRACE_S)
        return left if settings.timeout_s is None else min(settings.timeout_s, left)

    def timed_out(self) -> TimeoutError_:
        """The error of a wait that took longer than `patience_s`."""
        settings = self.call.settings
        if settings.deadline_s is not None and self._elapsed_s() >= settings.deadline_s:
            return TimeoutError_(f"the answer did not end within deadline_s={settings.deadline_s:g}")
        return TimeoutError_(f"the server sent nothing for timeout_s={settings.timeout_s:g} seconds")

    def receive(self, chunk: Chunk) -> tuple[Chunk, ...]:
        """Takes the next chunk of the answer; returns it as pieces that are each of the thinking or of the answer.

        Raises:
            TimeoutError_: the deadline passed and the server did not end the answer.
        """
        chunk = self._without_calls(chunk)
        now_s = self._elapsed_s()
        if self._first_chunk_s is None:
            self._first_chunk_s = now_s
        self._last_chunk_s = now_s
        self.last = chunk
        self._texts.append(chunk.text)
        self._reasonings.append(chunk.reasoning)
        self._logprobs += chunk.logprobs
        self._prompt_logprobs = self._prompt_logprobs or chunk.prompt_logprobs
        self._usage = Usage(
            input_tokens=self._usage.input_tokens + chunk.usage.input_tokens,
            cached_tokens=self._usage.cached_tokens + chunk.usage.cached_tokens,
            output_tokens=self._usage.output_tokens + chunk.usage.output_tokens,
            reasoning_tokens=self._usage.reasoning_tokens + chunk.usage.reasoning_tokens,
        )
        if chunk.finish_reason is None and self.patience_s() == 0:
            raise self.timed_out()
        if not (chunk.reasoning and chunk.text):
            return (chunk,)
        # A busy server sends the end of the thinking and the beginning of the answer together.
        thought = replace(
            chunk, text="", finish_reason=None, stop_reason=None, logprobs=(), usage=Usage(), tool_calls=(), tool_call_deltas=()
        )
        return thought, replace(chunk, reasoning="", prompt_logprobs=())

    def _without_calls(self, chunk: Chunk) -> Chunk:
        """A chunk whose text holds no calls of tools: these are apart."""
        if chunk.tool_format and self._parser is None:
            names = [tool["function"]["name"] for tool in self.call.settings.options.tools or ()]
            self._parser = ToolCallParser(chunk.tool_format, names)
        if self._parser is None:
            return chunk
        found = self._parser.push(chunk.text)
        reason = chunk.finish_reason
        if reason is not None:
            rest = self._parser.finish()
            found = Found(text=found.text + rest.text, deltas=found.deltas + rest.deltas, calls=found.calls + rest.calls)
        self._calls += found.calls
        if reason == "stop" and self._calls and not self._parser.cut_off:
            reason = "tool_calls"
        calls, deltas = tuple(found.calls), tuple(found.deltas)
        return replace(chunk, text=found.text, tool_calls=calls, tool_call_deltas=deltas, finish_reason=reason)

    def end(self) -> None:
        """The server closed the stream.

        Raises:
            StreamBroken: before it had sent the last chunk, or the answer ended in an error.
        """
        if self.finish_reason is None:
            raise StreamBroken("the server closed the stream before the last chunk")
        if self.finish_reason == "error":
            raise StreamBroken("the server failed while it generated the answer")

    def retry_pause_s(self, error: TriuneError) -> float | None:
        """Seconds to wait before the call is tried again; None if the stream is over in spite of the error.

        Only what cannot have generated anything is tried again: no connection, or a refusal for lack of room.

        Raises:
            TriuneError: it is not safe, not allowed any more, or would pass the deadline: `error`, made complete.
        """
        timed_out = isinstance(error, TimeoutError_)
        if self.left and not timed_out:
            return None  # however the server answers a cancel, the reader asked for the end
        if self.finish_reason not in (None, "error"):
            return None  # the last chunk came: what follows it does not matter
        error = with_request(error, self.call.request_id, self.text)
        if self.last is not None and not isinstance(error, StreamBroken | TimeoutError_ | Cancelled):
            broken = StreamBroken(error.message, status=error.status, code=error.code, param=error.param)
            raise with_request(broken, self.call.request_id, self.text) from error
        safe = isinstance(error, ConnectError | Overloaded)
        if not safe or self._retries >= self.call.settings.max_retries:
            raise error
        asked = error.retry_after_s if isinstance(error, Overloaded) else None
        backoff = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**self._retries) * random.uniform(0.75, 1.25)
        pause = backoff if asked is None else asked
        if pause > _LONGEST_RETRY_AFTER_S:
            raise error
        deadline_s = self.call.settings.deadline_s
        if deadline_s is not None and self._elapsed_s() + pause >= deadline_s:
            raise error
        self._retries += 1
        return pause

    def leave(self) -> bool:
        """The reader leaves. True if the server should be told: something was sent, and the answer has not ended."""
        tell = self._sent and not self.left and self.finish_reason is None
        self.left = True
        return tell

    def completion(self) -> Completion:
        """The answer, whole or as far as it was read.

        Raises:
            RuntimeError: it has neither ended nor been left.
            InvalidAnswer: it is not what `response_format` says.
        """
        reason: FinishReason | None = self.finish_reason or ("cancelled" if self.left else None)
        if reason is None:
            raise RuntimeError("the answer has not ended: read the stream to its end, or close it, first")
        return Completion(
            text=self.text,
            reasoning=self.reasoning,
            finish_reason=reason,
            stop_reason=self.last.stop_reason if self.last else None,
            usage=self._usage,
            logprobs=tuple(self._logprobs),
            prompt_logprobs=self._prompt_logprobs,
            request_id=self.call.request_id,
            request_key=self.last.request_key if self.last else None,
            model=self.call.settings.model,
            time_to_first_token_s=self._first_chunk_s,
            duration_s=self._last_chunk_s,
            tool_calls=tuple(self._calls),
            parsed=self._parsed() if reason == "stop" else None,
        )

    def completions(self) -> tuple[Completion, ...]:
        """All answers of the call. Raises as `completion`."""
        return (self.completion(),)

    def _parsed(self) -> object:
        wanted = self.call.settings.options.response_format
        if wanted is None or not _structured.is_json(wanted):
            return None
        try:
            return _structured.parse(wanted, self.text)
        except InvalidAnswer as error:
            raise with_request(error, self.call.request_id, self.text) from error

    def _elapsed_s(self) -> float:
        return time.monotonic() - self.started
