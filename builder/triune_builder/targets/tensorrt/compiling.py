"""The stages of a build for TensorRT: the same graph, lowered otherwise; no GPU is needed. Imports heavy packages."""

from __future__ import annotations

import time
from pathlib import Path

from triune_runtime.manifest import EngineManifest
from triune_runtime.targets.device.plan import Profile
from triune_runtime.targets.tensorrt.elsewhere import other_python
from triune_runtime.targets.tensorrt.plan import TensorRtPlan

from ...checkpoint import Checkpoint
from ...fingerprint import sha256
from ...graph.export import export
from ...graph.promises import check_weights
from ...plan import BuildPlan
from ...verify.verification import Note, Verification
from .. import onnx_files
from ..calibration import forget, quantize_calibrated
from ..facts import EngineFacts, record
from ..target import StageFactory
from . import adapter, engine_report, gpus, graph_files
from .classic.compiling import compile_classic, verify_classic
from .interpreter import Interpreter
from .lowering import capacity, lower
from .network_runner import NetworkRunner
from .options import TensorRtOptions
from .precisions import find_precision
from .proof import verify_network

_GRAPH = "network"  # folder of the ONNX file and its weights, which stay in the cache: a repository has the plan alone
_TIMINGS = "timings.bin"


def compile_engine(plan: BuildPlan, checkpoint: Checkpoint, folder: Path, stage: StageFactory) -> EngineFacts:
    """See `Target.compile`.

    Raises:
        BuildError: a GPU that lacks the precision, before any work; or TensorRT refuses.
    """
    options, limits = TensorRtOptions.of(plan), plan.limits
    targets = options.compute_capabilities
    if (classic := gpus.classic_version(targets)) is not None:
        return compile_classic(plan, checkpoint, folder, stage, version=classic, python=other_python())
    precision = find_precision(plan.precision, targets)
    rt = adapter.load(gpus.flavour(targets))
    graph = folder / _GRAPH / graph_files.GRAPH
    graph.parent.mkdir(exist_ok=True)
    with stage("export") as clock:
        check_weights(checkpoint.config, checkpoint.weights)
        bundle = export(checkpoint, max_length=limits.max_length)
        for remark in bundle.remarks:
            clock.show.say(f"{'export':<10} {remark}")
    with stage("quantize") as clock:
        changes = quantize_calibrated(
            bundle, checkpoint, precision.weights, plan.rounding, folder, clock.count, clock.show.say, plan.calibration
        ).changes
    with stage("lower"):
        bundle = lower(bundle, max_length=limits.max_length, dtype=precision.dtype)
    with stage("write") as clock:
        written = onnx_files.write(bundle, graph.parent, clock.count, changes=changes)
        forget(folder)
    with stage("compile") as clock:
        began = time.monotonic()
        graph_files.lint(graph)
        network = graph_files.parse(rt, graph)
        ranges = graph_files.profiles(limits)
        positions = capacity(limits.max_length)
        warnings = adapter.build(
            network,
            folder / graph_files.PLAN,
            [graph_files.shapes(r, bundle.cache, positions) for r in ranges.values()],
            compute_capabilities=targets,
            weight_streaming=options.weight_streaming,
            timing_cache=folder.parent / f"{rt.flavour}-{rt.version}-{_TIMINGS}",
        )
        clock.note("checking the plan")
        state = adapter.integrity(rt, folder / graph_files.PLAN)
        described = TensorRtPlan(
            flavour=rt.flavour,
            version=rt.version,
            compute_capabilities=targets,
            capacity=positions,
            profiles=tuple(Profile(name=name, **sizes) for name, sizes in ranges.items()),
            plan_bytes=(folder / graph_files.PLAN).stat().st_size,
            plan_sha256=sha256(folder / graph_files.PLAN),
            weight_streaming=options.weight_streaming,
            best_tokens=True,
        )
        described_report = engine_report.describe(
            network, described, bundle.cache, limits, dtype=precision.dtype, state=state, warnings=warnings,
            seconds=time.monotonic() - began,
        )  # fmt: skip
        described_report.write(folder)
    return EngineFacts(
        architecture=bundle.architecture,
        vocab_size=bundle.vocab_size,
        cache=bundle.cache,
        changes=tuple(map(record, changes)),
        files=(graph_files.PLAN, engine_report.JSON_NAME, engine_report.TEXT_NAME),
        engine=graph_files.PLAN,
        loaded_bytes=written.loaded,
        plan=described.to_json(),
    )


def verify_parsed(manifest: EngineManifest, folder: Path, checkpoint: Checkpoint, note: Note) -> Verification:
    """Compare the network that TensorRT parsed, computed in NumPy, with the float reference.

    Args:
        folder: what `compile_engine` wrote.
    """
    if TensorRtPlan.of(manifest).fixed_sizes:
        return verify_classic(manifest, folder, checkpoint, note)
    note("parsing again")
    runner = make_network_runner(folder / _GRAPH / graph_files.GRAPH, manifest)
    return verify_network(runner, manifest.limits, checkpoint, note=note)


def make_network_runner(graph: Path, manifest: EngineManifest) -> NetworkRunner:
    """A runner that computes the network TensorRT makes of the ONNX file `graph`, on the CPU."""
    rt = adapter.load(TensorRtPlan.of(manifest).flavour)
    network = graph_files.parse(rt, graph)
    interpreter = Interpreter(rt.trt, network.definition, graph_files.hidden_weights(graph))
    return NetworkRunner(interpreter, network, manifest)
