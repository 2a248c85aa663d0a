"""What this process and that of vLLM tell each other: JSON, a line each. Values only; known to both sides.

To vLLM: one `Start`, then `Add` and `Abort` as requests come and go. When that pipe closes, it ends.
From vLLM: one `Ready` or `Failed`, then `Step` for each step of the engine, `Refused`, and at the worst one `Failed`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

Logprob = tuple[float, tuple[tuple[int, float], ...]]  # of a token; and the best at its position, best first


@dataclass(frozen=True, kw_only=True)
class Start:
    """Load the engine with vLLM's arguments, and serve."""

    arguments: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Add:
    """Serve a request.

    Attributes:
        params: by the names of vLLM's SamplingParams; and `bad_words`, as ids.
        extra: what the logits processor is told of it, see `guides`; None: nothing.
    """

    key: int
    prompt: tuple[int, ...]
    params: dict[str, Any]
    extra: dict[str, Any] | None = None
    cache_salt: str = ""


@dataclass(frozen=True, kw_only=True)
class Abort:
    """End a request; nothing more is told of it."""

    key: int


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The engine serves.

    Attributes:
        version: of vLLM.
        vocab_size: ids that it takes are below this.
        kv_blocks: of KV memory, of all copies of the model together.
        block_tokens: tokens of each.
    """

    version: str
    vocab_size: int
    kv_blocks: int
    block_tokens: int


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The engine cannot be loaded, or runs no more."""

    why: str


@dataclass(frozen=True, kw_only=True)
class Refused:
    """vLLM does not take a request."""

    key: int
    why: str


@dataclass(frozen=True, slots=True)
class First:
    """What is told of a request with its first piece.

    Attributes:
        queued_s: seconds that it waited for its first step.
        cached: tokens of its prompt that were computed already.
        scores: of the prompt's tokens from the second on, if asked for: (id, rank, log probabilities).
    """

    queued_s: float
    cached: int
    scores: tuple[tuple[int, int, Logprob], ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens of a request.

    Attributes:
        finish: why nothing follows, in vLLM's words; None: something may.
        logprobs: of each token, if asked for.
    """

    key: int
    tokens: tuple[int, ...]
    finish: str | None = None
    logprobs: tuple[Logprob, ...] = ()
    first: First | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """How full an engine is.

    Attributes:
        kv_usage: share of its KV memory that is in use.
    """

    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """What has come since the last one.

    Attributes:
        steps: that the engine has made in all: whether it gets on.
    """

    steps: int
    load: Load
    pieces: tuple[Piece, ...] = ()


Order = Start | Add | Abort
Told = Ready | Failed | Refused | Step
_KINDS = {kind.__name__: kind for kind in (Start, Add, Abort, Ready, Failed, Refused, Step)}


def written(message: Order | Told) -> bytes:
    """A message as a line."""
    values = [getattr(message, one.name) for one in dataclasses.fields(message)]
    return json.dumps([type(message).__name__, *map(_plain, values)], separators=(",", ":")).encode() + b"\n"


def read(line: bytes) -> Any:
    """The inverse.

    Raises:
        ValueError: it is no message.
    """
    try:
        name, *values = json.loads(line)
        kind = _KINDS[name]
        told = dict(zip([one.name for one in dataclasses.fields(kind)], values, strict=True))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"no message of vLLM's process: {line[:200]!r}") from error
    if kind is Add:
        told["prompt"] = tuple(told["prompt"])
    if kind is Step:
        told |= {"load": Load(*told["load"]), "pieces": tuple(map(_piece, told["pieces"]))}
    return kind(**told)


def _plain(value: Any) -> Any:
    """Values of slots as lists, which JSON makes of tuples anyway."""
    if isinstance(value, (Piece, Load, First)):
        return [_plain(getattr(value, one.name)) for one in dataclasses.fields(value)]
    return [_plain(one) if isinstance(one, Piece) else one for one in value] if isinstance(value, tuple) else value


def _piece(row: list[Any]) -> Piece:
    key, tokens, finish, logprobs, first = row
    if first is not None:
        scores = tuple((token, rank, _logprob(logprob)) for token, rank, logprob in first[2])
        first = First(first[0], first[1], scores)
    return Piece(key, tuple(tokens), finish, tuple(map(_logprob, logprobs)), first)


def _logprob(row: list[Any]) -> Logprob:
    return row[0], tuple((token, value) for token, value in row[1])
