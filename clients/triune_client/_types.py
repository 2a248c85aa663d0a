"""What comes back from a server: plain frozen values. Knows nothing of the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ._tools import ToolCall, ToolCallDelta

FinishReason = Literal["stop", "length", "tool_calls", "cancelled", "deadline", "error"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Tokens of a chunk or of a whole answer."""

    input_tokens: int = 0
    cached_tokens: int = 0  # those of the input that the server found computed
    output_tokens: int = 0
    reasoning_tokens: int = 0  # those of the output that are thinking, where it is kept apart

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """A piece of an answer, or of the thinking before it, as it arrives; never of both.

    The texts of all chunks concatenated are the answer, their reasonings are the thinking.
    """

    text: str
    reasoning: str = ""
    sequence: int = 0  # of `n` answers, the one that this is a piece of
    index: int = 0  # 0, 1, 2, ... in an answer; the same twice where one response ends the thinking and begins the answer
    finish_reason: FinishReason | None = None  # set on the last chunk only
    stop_reason: str | None = None  # the stop string that ended the answer
    usage: Usage = Usage()  # of this chunk: input tokens come with the first one
    logprobs: tuple[Any, ...] = ()  # the server's JSON entries, one a token, when asked for
    request_id: str = ""
    request_key: int | None = None  # the server's own number of the request
    tool_calls: tuple[ToolCall, ...] = ()  # those that ended with this chunk
    tool_call_deltas: tuple[ToolCallDelta, ...] = ()  # pieces of calls, as they come
    tool_format: str = ""  # how the model writes calls; of the first chunk, where tools were sent
    prompt_logprobs: tuple[Any, ...] = ()  # of the first chunk: an entry for each of the prompt's tokens, when asked for

    @property
    def is_reasoning(self) -> bool:
        """Whether it is a piece of the thinking."""
        return bool(self.reasoning)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """A whole answer. `str()` of it is its text."""

    text: str
    reasoning: str = ""  # what the model thought before, where that is kept apart: in chats
    finish_reason: FinishReason
    stop_reason: str | None = None  # the stop string that ended the answer
    usage: Usage = Usage()
    logprobs: tuple[Any, ...] = ()  # the server's JSON entries, one a token, when asked for
    request_id: str = ""
    request_key: int | None = None  # the server's own number of the request
    model: str = ""
    time_to_first_token_s: float | None = None  # from the call to the first chunk, waits for retries included
    duration_s: float = 0.0  # from the call to the last chunk
    tool_calls: tuple[ToolCall, ...] = ()  # what the model wants called; then finish_reason is "tool_calls"
    prompt_logprobs: tuple[Any, ...] = ()  # an entry for each of the prompt's tokens, when asked for; the first has no value
    parsed: Any = None  # the answer as `response_format` says; None where it was cut off, or calls tools

    @property
    def message(self) -> dict[str, Any]:
        """The answer as a message, to go on with in a conversation."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.tool_calls:
            message["tool_calls"] = [call.to_message() for call in self.tool_calls]
        return message | ({"reasoning_content": self.reasoning} if self.reasoning else {})

    @property
    def tokens_per_second(self) -> float | None:
        """Output tokens a second after the first token; None for answers too short to tell."""
        decoding_s = self.duration_s - (self.time_to_first_token_s or 0.0)
        if self.usage.output_tokens < 2 or decoding_s <= 0:
            return None
        return (self.usage.output_tokens - 1) / decoding_s

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """A text as the model's tokenizer cuts it."""

    ids: tuple[int, ...]
    names: tuple[str, ...]  # of the tokens, as the vocabulary has them
    text: str  # that the tokens make together, special ones included
    shown: str  # the same as answers and echoes have it: special tokens have no text
    max_length: int  # most tokens of a prompt and its answer together


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """A model the server knows."""

    name: str
    version: str = ""
    state: str = ""  # "READY", "UNAVAILABLE", ...; "" for a model that was never loaded
    reason: str = ""  # why it is not ready
