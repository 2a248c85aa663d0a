"""How long sequences may be where nobody says: as long as the model is made for, as far as memory allows. Reads no weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from triune_runtime.cgroup import Files, MachineFiles, memory_limits
from triune_runtime.manifest import CacheTensor, Limits

from .targets.target import Target

_LEAST, _STEP, _SMALL_STEP = 256, 1024, 256  # tokens: never chosen shorter, and the lengths that memory allows are rounded to
_SHARE = 2  # KV slots may take one part in so many of the memory that the weights leave


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a checkpoint says of lengths and memory."""

    own: int | None  # tokens that the model is made for; None: it does not say
    cache: tuple[CacheTensor, ...]
    loaded: int | None  # bytes of the weights in a server's memory, at the plan's precision; None: unknown

    def kv_bytes(self, length: int) -> int:
        """Of one slot for sequences of that length."""
        return sum(c.bytes_per_position * c.positions(length) for c in self.cache)

    def to_json(self) -> dict[str, Any]:
        """What a build need not open the checkpoint for to know."""
        sizes: dict[str, int] = {}
        for c in self.cache:
            sizes[str(c.window or 0)] = sizes.get(str(c.window or 0), 0) + c.bytes_per_position
        return {"own": self.own, "loaded": self.loaded, "positions": sizes}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Room:
        """The inverse, with one tensor of int8 for each window.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        cache = tuple(
            CacheTensor(name=window, heads=1, dim=int(size), dtype="int8", window=int(window) or None)
            for window, size in raw["positions"].items()
        )
        return cls(own=raw["own"], loaded=raw["loaded"], cache=cache)


@dataclass(frozen=True)
class Length:
    """A length, and why it is that."""

    tokens: int
    why: str


def own_length(config: Mapping[str, Any], rope_longest: int | None = None) -> int | None:
    """Tokens that config.json says the model is made for; None: it says nothing that can be one.

    Args:
        rope_longest: what its rotary embedding allows.
    """
    known = config.get("max_position_embeddings")
    said = known if isinstance(known, int) and not isinstance(known, bool) and known >= 2 else None
    return min((length for length in (said, rope_longest) if length is not None), default=None)


def choose_length(room: Room, sequences: int, target: Target, memory: int) -> Length:
    """The length for a plan that says none.

    Args:
        sequences: slots, each of which has room for a sequence of that length.
        memory: bytes of this machine.
    """
    own = room.own or Limits.max_length
    why = "the model's own length" if room.own else "the model does not say how long its sequences may be"
    longest = Length(own, why)
    if own > target.longest_unasked:
        longest = Length(target.longest_unasked, f"of the model's own {own:,}; a longer one must be asked for")
    if not target.serves_here:
        return longest
    allowed = max(memory - (room.loaded or 0), 0) // _SHARE
    if sequences * room.kv_bytes(longest.tokens) <= allowed:
        return longest
    least, most = min(_LEAST, longest.tokens), longest.tokens
    while least < most:  # the longest that fits
        middle = (least + most + 1) // 2
        least, most = (middle, most) if sequences * room.kv_bytes(middle) <= allowed else (least, middle - 1)
    step = _STEP if least >= _STEP else _SMALL_STEP
    tokens = max(least - least % step, min(_LEAST, longest.tokens))
    return Length(
        tokens,
        f"of the model's own {own:,}, for which {sequences} KV slots would take {_gigabytes(sequences * room.kv_bytes(own))}; "
        f"these take {_gigabytes(sequences * room.kv_bytes(tokens))} of {_gigabytes(memory)} when full",
    )


def machine_memory(files: Files | None = None) -> int:
    """Bytes that a process may have here: the machine's, or a container's part of it."""
    limits = [limit for limit, _ in memory_limits(files or MachineFiles())]
    return min([int(psutil.virtual_memory().total), *limits])


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB"
