"""What a caller asks for and what comes back: plain values, no tensors, no Triton."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

from .errors import TriuneError
from .packing import pack
from .text.cut import NOTHING, Cut, merge

FinishReason = Literal["stop", "length", "cancelled", "deadline", "error"]


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How to choose tokens and when to stop. Already validated: see `options/`."""

    # written by `make contracts` from options/declared.py: begin
    thinking_budget: int | None = None  # most tokens of thinking; then it is closed. 0: answer at once
    max_tokens: int | None = None  # most tokens of the answer; absent: what room the engine leaves
    min_tokens: int = 0  # no stop token or stop string before this many
    temperature: float = 0.0  # how evenly tokens are chosen; 0: greedy
    top_k: int = 0  # choose among the k best; 0 or -1: off
    top_p: float = 1.0  # choose among the best that have this probability together; 0 or 1: off
    min_p: float = 0.0  # choose among those at least this times as likely as the best; 0: off
    repetition_penalty: float = 1.0  # makes tokens of prompt and answer less likely; 1: off
    presence_penalty: float = 0.0  # taken from the logits of tokens that the answer has; 0: off
    frequency_penalty: float = 0.0  # the same, for each time that it has them; 0: off
    seed: int = 0  # the same seed gives the same text, whatever else is in the batch
    logit_bias: tuple[tuple[int, float], ...] = ()  # token id -> added to its logit
    bad_words: tuple[tuple[int, ...], ...] = ()  # what must not appear
    stop: tuple[str, ...] = ()  # strings that end the answer; not part of it
    stop_token_ids: tuple[int, ...] = ()  # tokens that end the answer, besides the model's own
    ignore_eos: bool = False  # go on after the model's own end
    max_drafts: int | None = None  # most tokens guessed ahead at once; absent: as many as pay
    logprobs: int | None = None  # 0: log probabilities of the chosen tokens; k: and of the k best
    prompt_logprobs: int | None = None  # the same of the prompt's tokens, all computed anew
    guide: tuple[str, str] | None = None  # what the answer must look like: see `constraints/guide.py`
    # written by `make contracts` from options/declared.py: end


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
    continues: bool = False  # its text goes on with the prompt's, which comes back with it
    timed: bool = False  # chunks say when things happened
    client: str = ""  # whose share of the server it takes; "": all who are not told apart
    guide_input: str = ""  # what the client says in what the answer must look like
    cache_salt: str = ""  # of its prompt in KV memory: with another one nothing is shared

    @cached_property
    def packed(self) -> bytes:
        """The prompt as `pack` has it.

        Raises:
            OverflowError: it has a token that no vocabulary has.
        """
        return pack(self.prompt)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log probability of a chosen token, and the best alternatives at its position."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # (token id, log probability), best first
    rank: int | None = None  # 1: the best; None: not known


@dataclass(frozen=True, slots=True)
class Times:
    """When things happened to a request, in the engine's seconds; None: not yet."""

    arrived: float
    scheduled: float | None = None  # its first step
    first: float | None = None  # token
    latest: float | None = None  # token


def _joined_by(rule: Callable[[Any, Any], Any]) -> dict[str, Any]:
    """How two neighbours' values of a field become the joined chunk's."""
    return {"joined_by": rule}


_FIRST = _joined_by(lambda first, second: first)
_LAST = _joined_by(lambda first, second: second)
_ADDED = _joined_by(operator.add)  # numbers; of tuples, one behind the other


@dataclass(frozen=True, slots=True)
class KvCounts:
    """What a request has taken of the KV memory."""

    new_blocks: int = 1
    reused_blocks: int = 0
    reused_tokens: int = 0  # of the prompt, that did not have to be computed


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer. What a response says is said here; each field says how two neighbours' become one."""

    index: int = field(metadata=_FIRST)  # 0, 1, 2, ... in a request
    cut: Cut = field(metadata=_joined_by(merge))  # its text, always whole UTF-8; the byte ranges of two never overlap
    new_tokens: int = field(metadata=_ADDED)  # generated since the chunk before; sums to the answer's length
    finish_reason: FinishReason | None = field(default=None, metadata=_LAST)  # set on the last chunk only
    logprobs: tuple[TokenLogprob, ...] = field(default=(), metadata=_ADDED)  # one a new token, when asked for
    times: Times | None = field(default=None, metadata=_LAST)  # when asked for
    drafted: int = field(default=0, metadata=_LAST)  # on the last chunk: tokens of the whole answer that were guessed ahead
    accepted: int = field(default=0, metadata=_LAST)  # and how many of them were right
    kv: KvCounts = field(default=KvCounts(), metadata=_LAST)
    scores: tuple[TokenLogprob, ...] = field(default=(), metadata=_ADDED)  # of the prompt's tokens from the second on

    @classmethod
    def cancelled(cls) -> Chunk:
        """The one chunk of a request that was cancelled before it had any."""
        return cls(0, NOTHING, 0, "cancelled")


_JOINED_BY = tuple((one.name, one.metadata["joined_by"]) for one in fields(Chunk))


def join(first: Chunk, second: Chunk) -> Chunk:
    """Two neighbouring chunks of a request as one, with the index of the first."""
    return Chunk(*[rule(getattr(first, name), getattr(second, name)) for name, rule in _JOINED_BY])


@dataclass(frozen=True, slots=True)
class Event:
    """Something to tell the sender of request `key`: a piece of its answer, or why there is none."""

    key: int
    item: Chunk | TriuneError

    @property
    def last(self) -> bool:
        """Whether nothing follows for this request."""
        return isinstance(self.item, TriuneError) or self.item.finish_reason is not None
