"""The stages of a build for TensorRT 8.6 to 10, on the machine with the GPU: these versions build nowhere else."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path

from triune_runtime.manifest import EngineManifest
from triune_runtime.targets.device.stored import WEIGHTS, StoredWeight, load_weights, save_weights
from triune_runtime.targets.tensorrt.plan import PlanFile, TensorRtPlan

from ....checkpoint import Checkpoint
from ....errors import BuildError, option
from ....fingerprint import sha256
from ....graph.export import GraphBundle, export
from ....graph.promises import check_weights
from ....plan import BuildPlan
from ....quantize.apply import quantize
from ....verify.verification import Note, Verification
from ... import onnx_files
from ...facts import EngineFacts, record
from ...target import StageFactory
from .. import adapter, engine_report
from ..options import TensorRtOptions
from ..precisions import find_precision
from ..proof import verify_network
from . import files
from .building import Engine, build_engines, published, this_or
from .lowering import DTYPE, capacity, lower
from .network_runner import ClassicNetwork, interpreted
from .run import DECODE, PREFILL
from .sizes import engine_sizes

GRAPHS = "network"  # folder of the graphs, which stay in the cache
_KINDS = (PREFILL, DECODE)


def compile_classic(
    plan: BuildPlan, checkpoint: Checkpoint, folder: Path, stage: StageFactory, *, version: str, python: str
) -> EngineFacts:
    """See `Target.compile`.

    Args:
        version: of TensorRT.
        python: the interpreter that has it; empty: this one.

    Raises:
        BuildError: a precision that these versions lack, before any work; or TensorRT refuses.
    """
    options, limits = TensorRtOptions.of(plan), plan.limits
    precision = find_precision(plan.precision, options.compute_capabilities)
    if precision.weights.name != "fp16":
        raise BuildError(
            f"TensorRT {version} takes no {precision.weights.name} in the form that Triune writes for it",
            f"choose {option('precision', 'fp16')}, or install TensorRT 11",
        )
    graphs = folder / GRAPHS
    graphs.mkdir(exist_ok=True)
    bundles: dict[str, tuple[GraphBundle, frozenset[str]]] = {}
    with stage("export") as clock:
        check_weights(checkpoint.config, checkpoint.weights)
        floats = {kind: export(checkpoint, max_length=limits.max_length) for kind in _KINDS}
        for remark in floats[PREFILL].remarks:
            clock.show.say(f"{'export':<10} {remark}")
    with stage("lower"):
        changes = []
        for kind, bundle in floats.items():
            changes = quantize(bundle, precision.weights).changes
            bundles[kind] = lower(bundle, kind, max_length=limits.max_length)
    first = bundles[PREFILL][0]
    with stage("write") as clock:
        stored = files.write_weights(*bundles[PREFILL], folder, clock.count, changes)
        (folder / onnx_files.MODEL).unlink()
        save_weights(stored, folder)
        for kind, (bundle, weights) in bundles.items():
            files.write_graph(bundle, weights, graphs / f"{kind}.onnx")
    with stage("compile") as clock:
        began = time.monotonic()
        engines = build_engines(engine_sizes(limits), graphs, folder, this_or(python), clock.note)
        for engine in engines:
            if engine.problem:
                clock.show.say(f"{'compile':<10} no {engine.name}, shorter ones do: {engine.problem[:200]}")
        built = published(engines)
        described = TensorRtPlan(
            flavour=adapter.FULL,
            version=version,
            compute_capabilities=options.compute_capabilities,
            capacity=capacity(limits.max_length),
            profiles=tuple(engine.profile for engine in built),
            plan_bytes=built[0].plan.stat().st_size,
            plan_sha256=sha256(built[0].plan),
            best_tokens=True,
            fixed_sizes=True,
            plans=tuple(_file(engine.plan) for engine in built),
            weights=tuple(_file(folder / name) for name in (onnx_files.DATA, WEIGHTS)),
        )
        _report(described, engines, stored, time.monotonic() - began, folder)
    names = dict.fromkeys(engine.plan.name for engine in built)
    return EngineFacts(
        architecture=first.architecture,
        vocab_size=first.vocab_size,
        cache=first.cache,
        changes=tuple(map(record, changes)),
        files=(*names, onnx_files.DATA, WEIGHTS, engine_report.JSON_NAME, engine_report.TEXT_NAME),
        engine=built[0].plan.name,
        loaded_bytes=sum(weight.length for weight in stored),
        plan=described.to_json(),
    )


def verify_classic(manifest: EngineManifest, folder: Path, checkpoint: Checkpoint, note: Note) -> Verification:
    """Compare the graphs, as TensorRT-RTX's parser reads them and computed in NumPy, with the float reference.

    Args:
        folder: what `compile_classic` wrote.
    """
    note("parsing the graphs")
    plan, rt = TensorRtPlan.of(manifest), adapter.load(adapter.RTX)
    weights = files.read_weights(load_weights(folder), folder)
    computes = {kind: interpreted(rt, folder / GRAPHS / f"{kind}.onnx", weights) for kind in _KINDS}
    sizes = {"capacity": plan.capacity, "slots": manifest.limits.max_sequences}
    network = ClassicNetwork(computes, manifest.cache, vocab_size=manifest.vocab_size, **sizes)
    return verify_network(network, manifest.limits, checkpoint, note=note)


def _file(path: Path) -> PlanFile:
    return PlanFile(name=path.name, bytes=path.stat().st_size, sha256=sha256(path))


def _report(
    plan: TensorRtPlan, engines: Sequence[Engine], weights: Sequence[StoredWeight], seconds: float, folder: Path
) -> None:
    """plan.json and plan.txt."""
    weight_bytes = sum(weight.length for weight in weights)
    sizes = {file.name: file.bytes for file in plan.plans}
    rows = [dataclasses.asdict(engine) | {"plan": engine.plan.name, "bytes": sizes.get(engine.plan.name)} for engine in engines]
    known = {"plan": plan.to_json(), "engines": rows, "weight_bytes": weight_bytes, "seconds": round(seconds, 2)}
    (folder / engine_report.JSON_NAME).write_text(json.dumps(known, indent=2) + "\n", "utf-8")
    where = ", ".join(plan.compute_capabilities) or "the GPU that built it"
    lines = [
        f"{plan.flavour} {plan.version} for compute capability {where}, arithmetic in {DTYPE}, {seconds:.1f} s in all",
        f"weights {weight_bytes / 1e6:,.1f} MB, inputs of every engine; {plan.capacity} positions of a slot",
        "",
    ]
    for engine in engines:
        if engine.problem:
            lines.append(f"{engine.name}: not built: {engine.problem}")
            continue
        size = engine.plan.stat().st_size
        lines.append(
            f"{engine.name}: {size / 1e6:,.1f} MB in {engine.seconds:.1f} s ({engine.parse_s:.1f} s of it "
            f"parsing), peak {engine.peak_bytes / 1e9:.2f} GB, {sum(engine.layers.values())} layers parsed"
        )
        lines += [f"  warning: {text}" for text in engine.warnings]
    (folder / engine_report.TEXT_NAME).write_text("\n".join(lines) + "\n", "utf-8")
