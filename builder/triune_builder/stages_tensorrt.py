"""The stages of a build for TensorRT: the same graph, lowered otherwise; no GPU is needed. Imports heavy packages."""

from __future__ import annotations

import time
from pathlib import Path

from triune_runtime.manifest import EngineManifest, TensorRtPlan, TensorRtProfile
from triune_runtime.runners import Runner, make_runner

from .checkpoint import Checkpoint, open_checkpoint
from .engine import ort, trt, trt_adapter, trt_report, trt_targets
from .engine.trt_fp8 import quantize_fp8
from .engine.trt_lowering import capacity, lower
from .errors import BuildError
from .fingerprint import sha256
from .graph.export import export
from .graph.shapes import check_weights
from .plan import BuildPlan
from .progress import StageClock
from .quantize.apply import quantize
from .stages import record
from .tools import EngineFacts, StageFactory, Tools
from .verify.layers import Pieces
from .verify.network import Interpreter
from .verify.network_runner import NetworkRunner
from .verify.verify import Note, Verification
from .verify.verify_network import verify_network

_GRAPH = "network"  # folder of the ONNX file and its weights, which stay in the cache: a repository has the plan alone
_TIMINGS = "timings.bin"


class TensorRtTools(Tools):
    """Builds for TensorRT, or for TensorRT-RTX where that has the GPU."""

    def open_checkpoint(self, model: str, cache: Path, clock: StageClock) -> Checkpoint:
        return open_checkpoint(model, cache=cache, progress=clock.note)

    def compile(self, plan: BuildPlan, checkpoint: Checkpoint, folder: Path, stage: StageFactory) -> EngineFacts:
        """See `Tools.compile`.

        Raises:
            BuildError: a GPU that lacks the precision, before any work; or TensorRT refuses.
        """
        targets, limits = plan.compute_capabilities, plan.limits
        precision = trt_targets.find_precision(plan.precision, targets)
        rt = trt_adapter.load(trt_targets.flavour(targets))
        graph = folder / _GRAPH / trt.GRAPH
        graph.parent.mkdir(exist_ok=True)
        with stage("export"):
            check_weights(checkpoint.config, checkpoint.weights)
            bundle = export(checkpoint, max_length=limits.max_length)
        with stage("quantize"):
            changes = quantize_fp8(bundle, precision.weights) if precision.fp8 else quantize(bundle, precision.weights).changes
        with stage("lower"):
            bundle = lower(bundle, max_length=limits.max_length, dtype=precision.dtype)
        with stage("write") as clock:
            written = ort.write(bundle, graph.parent, clock.count, changes=changes)
        with stage("compile") as clock:
            began = time.monotonic()
            trt.lint(graph)
            network = trt.parse(rt, graph)
            ranges = trt.profiles(limits)
            positions = capacity(limits.max_length)
            warnings = trt_adapter.build(
                network,
                folder / trt.PLAN,
                [trt.shapes(r, bundle.cache, positions) for r in ranges.values()],
                compute_capabilities=targets,
                weight_streaming=plan.weight_streaming,
                timing_cache=folder.parent / f"{rt.flavour}-{rt.version}-{_TIMINGS}",
            )
            clock.note("checking the plan")
            state = trt_adapter.integrity(rt, folder / trt.PLAN)
            described = TensorRtPlan(
                flavour=rt.flavour,
                version=rt.version,
                compute_capabilities=targets,
                capacity=positions,
                profiles=tuple(TensorRtProfile(name=name, **sizes) for name, sizes in ranges.items()),
                plan_bytes=(folder / trt.PLAN).stat().st_size,
                plan_sha256=sha256(folder / trt.PLAN),
                weight_streaming=plan.weight_streaming,
                best_tokens=True,
            )
            report = trt_report.describe(
                network, described, bundle.cache, limits, dtype=precision.dtype, state=state, warnings=warnings,
                seconds=time.monotonic() - began,
            )  # fmt: skip
            report.write(folder)
        return EngineFacts(
            architecture=bundle.architecture,
            vocab_size=bundle.vocab_size,
            cache=bundle.cache,
            changes=tuple(map(record, changes)),
            files=(trt.PLAN, trt_report.JSON_NAME, trt_report.TEXT_NAME),
            engine=trt.PLAN,
            loaded_bytes=written.loaded,
            tensorrt=described,
        )

    def make_runner(self, manifest: EngineManifest, folder: Path) -> Runner:
        return make_runner(manifest, folder)

    def make_pieces(self, manifest: EngineManifest, folder: Path) -> Pieces:
        raise BuildError("a TensorRT engine is not verified layer by layer", "choose --verify auto")

    def verify_network(self, manifest: EngineManifest, folder: Path, checkpoint: Checkpoint, note: Note) -> Verification:
        """Compare the network that TensorRT parsed, computed in NumPy, with the float reference."""
        assert manifest.tensorrt is not None
        note("parsing again")
        runner = make_network_runner(folder / _GRAPH / trt.GRAPH, manifest)
        return verify_network(runner, manifest.limits, checkpoint, note=note)


def make_network_runner(graph: Path, manifest: EngineManifest) -> NetworkRunner:
    """A runner that computes the network TensorRT makes of the ONNX file `graph`, on the CPU."""
    assert manifest.tensorrt is not None
    rt = trt_adapter.load(manifest.tensorrt.flavour)
    network = trt.parse(rt, graph)
    interpreter = Interpreter(rt.trt, network.definition, trt.hidden_weights(graph))
    return NetworkRunner(interpreter, network, manifest)
