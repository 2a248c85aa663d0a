"""What engine.json says of a TensorRT engine: the `plan` of its manifest."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from ...errors import ManifestError
from ...manifest import EngineManifest
from ..device.plan import SlotPlan, profiles_from


@dataclass(frozen=True, kw_only=True)
class PlanFile:
    """A file of an engine, and what is in it."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class TensorRtPlan(SlotPlan):
    """What a machine must have to run a TensorRT engine, and how the engine is driven; the plan is the engine's file."""

    flavour: str  # the package that built the plan and must load it: tensorrt or tensorrt_rtx
    version: str  # of that package, e.g. 1.7.1.116: no other version loads the plan
    compute_capabilities: tuple[str, ...]  # of the GPUs it was built for, e.g. 8.9; empty: any from 8.0 on
    plan_bytes: int
    plan_sha256: str
    weight_streaming: bool = False  # whether weights may stay in host memory
    plans: tuple[PlanFile, ...] = ()  # with fixed sizes: of each profile, in their order; the engine's file is the first
    weights: tuple[PlanFile, ...] = ()  # likewise: the files whose bytes are bound to inputs, and the list of them

    def to_json(self) -> dict[str, Any]:
        """As a manifest holds it: lists and numbers."""
        raw: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return raw

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> TensorRtPlan:
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: a key is missing or unknown, or has a value of another kind.
        """
        known: dict[str, Any] = {
            "profiles": profiles_from(raw["profiles"]),
            "compute_capabilities": tuple(map(str, raw["compute_capabilities"])),
        }
        known |= {kind: tuple(PlanFile(**file) for file in raw.get(kind, ())) for kind in ("plans", "weights")}
        return cls(**(raw | known))

    @classmethod
    def of(cls, manifest: EngineManifest) -> TensorRtPlan:
        """The plan of a TensorRT engine's manifest.

        Raises:
            ManifestError: it has none, or one that does not fit.
        """
        if not manifest.plan:
            raise ManifestError(
                f"engine.json is of target {manifest.target} but says nothing of TensorRT", "build the engine again"
            )
        try:
            return cls.from_json(manifest.plan)
        except (KeyError, TypeError, ValueError) as error:
            raise ManifestError(
                f"what engine.json says of TensorRT does not fit this runtime: {error}", "build the engine again"
            ) from error
