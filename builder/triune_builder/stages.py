"""What the stages really are: the one table of calls into checkpoint, graph, quantize and engine. Imports heavy packages."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from triune_runtime.manifest import EngineManifest
from triune_runtime.runners import Runner, make_runner

from .checkpoint import Checkpoint, open_checkpoint
from .engine import ort, ort_lowering
from .graph.export import export
from .plan import BuildPlan
from .progress import StageClock
from .quantize.apply import Change, quantize
from .quantize.policy import find_precision
from .tools import EngineFacts, StageFactory, Tools
from .verify.reference import input_maxima
from .verify.report import WeightChange
from .verify.verify import TEXTS


class OrtTools(Tools):
    """Builds for ONNX Runtime on a CPU."""

    def open_checkpoint(self, model: str, cache: Path, clock: StageClock) -> Checkpoint:
        return open_checkpoint(model, cache=cache, progress=clock.note)

    def compile(self, plan: BuildPlan, checkpoint: Checkpoint, folder: Path, stage: StageFactory) -> EngineFacts:
        with stage("export"):
            bundle = export(checkpoint, max_length=plan.limits.max_length)
        with stage("quantize"):
            precision = find_precision(plan.precision)
            quantized = quantize(bundle, precision, _calibrate(checkpoint) if precision.smooth else None)
        with stage("lower"):
            bundle = ort_lowering.lower(quantized.bundle)
        with stage("write") as clock:
            files = ort.write(bundle, folder, clock.count)
        return EngineFacts(
            architecture=bundle.architecture,
            vocab_size=bundle.vocab_size,
            cache=bundle.cache,
            changes=tuple(map(_record, quantized.changes)),
            files=tuple(files),
            engine=ort.MODEL,
        )

    def make_runner(self, manifest: EngineManifest, folder: Path) -> Runner:
        return make_runner(manifest, folder)


def _calibrate(checkpoint: Checkpoint) -> dict[str, NDArray[np.float32]]:
    """How large the inputs of each linear get over the bundled calibration text."""
    text = (TEXTS / "calibration.txt").read_text("utf-8")
    tokens = Tokenizer.from_str(checkpoint.tokenizer_json).encode(text).ids
    return input_maxima(checkpoint.config, checkpoint.weights, [tokens])


def _record(change: Change) -> WeightChange:
    raw = dataclasses.asdict(change)
    return WeightChange(**(raw | {"error": None if math.isnan(change.error) else change.error}))
