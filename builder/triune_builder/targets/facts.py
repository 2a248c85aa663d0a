"""What a target tells of an engine that it compiled. Imports nothing heavy."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from triune_runtime.manifest import CacheTensor, Speculation, speculation_from

from ..quantize.change import Change
from ..verify.report import WeightChange


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """What a compiled engine is, beside its files."""

    architecture: str
    vocab_size: int
    cache: tuple[CacheTensor, ...]
    changes: tuple[WeightChange, ...]
    files: tuple[str, ...]  # all that the engine consists of
    engine: str  # the one to load
    loaded_bytes: int = 0  # of weights, in a server's memory
    speculation: Speculation | None = None
    plan: dict[str, Any] = field(default_factory=dict)  # see `EngineManifest.plan`

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> EngineFacts:
        cache = tuple(CacheTensor(**c) for c in raw["cache"])
        changes = tuple(WeightChange(**c) for c in raw["changes"])
        speculation = speculation_from(raw["speculation"]) if raw["speculation"] else None
        read = {"cache": cache, "changes": changes, "files": tuple(raw["files"]), "speculation": speculation}
        return cls(**(raw | read))


def record(change: Change) -> WeightChange:
    """What the report says of a quantized weight."""
    raw = dataclasses.asdict(change)
    return WeightChange(**(raw | {"error": None if math.isnan(change.error) else change.error}))
