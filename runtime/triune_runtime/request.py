"""What a caller asks for and what comes back: plain values, no tensors, no Triton."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .errors import TriuneError

FinishReason = Literal["stop", "length", "cancelled", "deadline", "error"]


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How to choose tokens and when to stop. Already validated: see `parsing.py`."""

    max_tokens: int | None = None  # None: whatever room the engine leaves
    min_tokens: int = 0  # no stop token or stop string before this many
    temperature: float = 0.0  # 0: greedy
    top_k: int = 0  # 0: off
    top_p: float = 1.0  # 1: off
    min_p: float = 0.0  # 0: off
    repetition_penalty: float = 1.0  # over prompt and answer
    presence_penalty: float = 0.0  # over the answer
    frequency_penalty: float = 0.0  # over the answer
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token id, added to its logit)
    bad_words: tuple[tuple[int, ...], ...] = ()  # token sequences that must not appear
    stop: tuple[str, ...] = ()  # strings that end the answer; not part of it
    stop_token_ids: tuple[int, ...] = ()  # besides the model's own
    ignore_eos: bool = False
    seed: int = 0  # decides the text of a sampled request, whatever else is in the batch
    logprobs: int | None = None  # None: off; 0: of the chosen tokens; k: and of the k best
    max_drafts: int | None = None  # most tokens guessed ahead at once; 0: none. None: as many as pay. Changes no text
    thinking_budget: int | None = None  # most tokens of thinking; then it is closed. None: as many as the model likes
    guide: tuple[str, str] | None = None  # what the answer must look like: see `constraints/guide.py`


@dataclass(frozen=True, kw_only=True)
class Request:
    """One generation request, ready for the scheduler."""

    key: int  # ours, unique in this process; client ids may be empty or repeated
    id: str = ""  # the client's request id, for the explicit abort
    prompt: tuple[int, ...]
    params: SamplingParams = SamplingParams()
    deadline: float | None = None  # time.monotonic() after which the request is aborted
    stream: bool = True  # False: one chunk at the end
    thinking_open: bool = False  # the prompt holds the opening marker, so the answer begins with thinking
    separate_reasoning: bool = False  # thinking is kept apart from the answer
    timed: bool = False  # chunks say when things happened


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log probability of a chosen token, and the best alternatives at its position."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # (token id, log probability), best first


@dataclass(frozen=True, slots=True)
class Times:
    """When things happened to a request, in the engine's seconds; None: not yet."""

    arrived: float
    scheduled: float | None = None  # its first step
    first: float | None = None  # token
    latest: float | None = None  # token


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer. Its text is bytes [byte_start, byte_stop) of its tokens' bytes, always whole UTF-8.

    Where thinking is kept apart, bytes [byte_start, border[0]) are thinking, and the answer is [border[1], byte_stop).
    Neighbouring chunks may name the same token where a character spans it; the byte ranges never overlap.
    """

    index: int  # 0, 1, 2, ... in a request
    token_ids: tuple[int, ...]  # the tokens that cover the text
    byte_start: int
    byte_stop: int
    new_tokens: int  # tokens generated since the chunk before; sums to the answer's length
    finish_reason: FinishReason | None = None  # set on the last chunk only
    stop_reason: str | None = None  # the stop string that ended the answer
    logprobs: tuple[TokenLogprob, ...] = ()  # one a new token, when asked for
    border: tuple[int, int] | None = None  # None: thinking is not kept apart
    reasoning_tokens: int = 0  # tokens whose text begins in this chunk's thinking
    times: Times | None = None  # when asked for
    drafted: int = 0  # on the last chunk: tokens of the whole answer that were guessed ahead
    accepted: int = 0  # and how many of them were right


@dataclass(frozen=True, slots=True)
class Event:
    """Something to tell the sender of request `key`: a piece of its answer, or why there is none."""

    key: int
    item: Chunk | TriuneError

    @property
    def last(self) -> bool:
        """Whether nothing follows for this request."""
        return isinstance(self.item, TriuneError) or self.item.finish_reason is not None
