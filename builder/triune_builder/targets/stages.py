"""The seam between the pipeline and the packages that do the work: what a stage takes and gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from triune_runtime.manifest import CacheTensor, EngineManifest, Speculation, TensorRtPlan, speculation_from
from triune_runtime.runner import Runner

from ..plan import BuildPlan
from ..progress import StageClock
from ..verify.layers import Pieces
from ..verify.report import WeightChange
from ..verify.verify import Note, Verification

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint


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
    tensorrt: TensorRtPlan | None = None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> EngineFacts:
        cache = tuple(CacheTensor(**c) for c in raw["cache"])
        changes = tuple(WeightChange(**c) for c in raw["changes"])
        speculation = speculation_from(raw["speculation"]) if raw["speculation"] else None
        tensorrt = TensorRtPlan.from_json(raw["tensorrt"]) if raw.get("tensorrt") else None
        read = {"cache": cache, "changes": changes, "files": tuple(raw["files"])}
        return cls(**(raw | read | {"speculation": speculation, "tensorrt": tensorrt}))


StageFactory = Callable[[str], AbstractContextManager[StageClock]]


class Tools(Protocol):
    """What the stages are made of; `stages.py` has the real ones, tests bring their own."""

    def open_checkpoint(self, model: str, cache: Path, clock: StageClock) -> Checkpoint:
        """The checkpoint of that name, fetched into `cache` if need be."""
        ...

    def compile(self, plan: BuildPlan, checkpoint: Checkpoint, folder: Path, stage: StageFactory) -> EngineFacts:
        """Write the engine into `folder`; every part of the work runs in `with stage(name)`.

        The folder is empty, or holds what an interrupted call with the same arguments left there.
        """
        ...

    def make_runner(self, manifest: EngineManifest, folder: Path) -> Runner:
        """The runner that will serve the engine."""
        ...

    def make_pieces(self, manifest: EngineManifest, folder: Path) -> Pieces:
        """The same engine, to be run without being loaded as a whole."""
        ...

    def verify_network(self, manifest: EngineManifest, folder: Path, checkpoint: Checkpoint, note: Note) -> Verification:
        """What was measured of an engine that cannot be run here: its network, computed by other means."""
        raise AssertionError("this target's engines are run themselves")


def real_tools(target: str) -> Tools:
    """What builds for `target`. Imports onnx, and onnxruntime or TensorRT: to be called only when there is work."""
    if target == "tensorrt":
        from .tensorrt.target import TensorRtTools

        return TensorRtTools()
    from .cpu.target import OrtTools

    return OrtTools()
