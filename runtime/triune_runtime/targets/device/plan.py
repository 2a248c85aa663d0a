"""What engine.json must say of an engine that a slot runner runs, beside what it says of every engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import ManifestError
from ...manifest import EngineManifest

PREFILL, DECODE = "prefill", "decode"  # names of profiles


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What an engine is compiled for: least, best and most of each size that varies."""

    name: str  # prefill or decode
    batch: tuple[int, int, int]  # sequences
    tokens: tuple[int, int, int]  # new tokens of each
    logits: tuple[int, int, int]  # positions of these that get logits


@dataclass(frozen=True, kw_only=True)
class SlotPlan:
    """How an engine with slots is driven."""

    capacity: int  # positions of a slot: the limits' max_length, rounded up
    profiles: tuple[Profile, ...]  # in the order of their index: one of each name, or with fixed sizes any number
    best_tokens: bool = False  # whether the engine finds each row's best token itself
    fixed_sizes: bool = False  # see `slot_inputs`

    def named(self, name: str) -> list[tuple[int, Profile]]:
        """The profiles of that name with their indices, the smallest first."""
        found = [(index, profile) for index, profile in enumerate(self.profiles) if profile.name == name]
        return sorted(found, key=lambda entry: (entry[1].batch, entry[1].tokens))


def slot_plan(manifest: EngineManifest) -> SlotPlan:
    """That part of the manifest's plan.

    Raises:
        ManifestError: it has none, or of another form.
    """
    raw = manifest.plan
    try:
        return SlotPlan(
            capacity=raw["capacity"],
            profiles=profiles_from(raw["profiles"]),
            best_tokens=raw.get("best_tokens", False),
            fixed_sizes=raw.get("fixed_sizes", False),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestError(
            f"engine.json says nothing that fits of slots and profiles, which engines of target {manifest.target} have: "
            f"{error!r}",
            "build the engine again",
        ) from error


def profiles_from(raw: Any) -> tuple[Profile, ...]:
    """The inverse of `dataclasses.asdict` and JSON.

    Raises:
        KeyError, TypeError, ValueError: a key is missing or unknown, or has a value of another kind.
    """
    return tuple(Profile(**(p | {size: _three(p[size]) for size in ("batch", "tokens", "logits")})) for p in _mappings(raw))


def _mappings(raw: Any) -> list[dict[str, Any]]:
    if not all(isinstance(p, Mapping) for p in raw):
        raise TypeError(f"profiles are {raw!r}")
    return [dict(p) for p in raw]


def _three(sizes: Any) -> tuple[int, int, int]:
    least, best, most = sizes
    return least, best, most
