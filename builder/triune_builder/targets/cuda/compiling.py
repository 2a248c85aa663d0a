"""The stages of a build for CUDA: a graph and its weights, which are the engine. No GPU is needed. Imports heavy packages."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from triune_runtime.manifest import EngineManifest
from triune_runtime.targets.cuda.plan import CudaPlan
from triune_runtime.targets.device.stored import WEIGHTS, load_weights, save_weights

from ...checkpoint import Checkpoint
from ...graph.export import export
from ...graph.promises import check_weights, settled_config
from ...lengths import own_length
from ...plan import BuildPlan
from ...verify.verification import Note, Verification
from .. import onnx_files
from ..calibration import forget, quantize_calibrated
from ..facts import EngineFacts, record
from ..onnx_weights import stored_weights
from ..target import StageFactory
from .decoder import dense_decoder
from .interpreter import Interpreter
from .kernels import block_tokens
from .lowering import lower
from .network_runner import NetworkRunner
from .own_ops import write_own_ops
from .precisions import find_precision
from .proof import check_alike, verify_network
from .target import engine_length


def compile_engine(plan: BuildPlan, checkpoint: Checkpoint, folder: Path, stage: StageFactory) -> EngineFacts:
    """See `Target.compile`."""
    precision = find_precision(plan.precision)
    with stage("export") as clock:
        check_weights(checkpoint.config, checkpoint.weights)
        _, cfg = settled_config(checkpoint.config, checkpoint.weights.keys())
        bundle = export(checkpoint, max_length=engine_length(plan, own_length(checkpoint.config, cfg.rope.longest)))
        for remark in bundle.remarks:
            clock.show.say(f"{'export':<10} {remark}")
    with stage("quantize") as clock:
        changes = quantize_calibrated(
            bundle, checkpoint, precision.weights, plan.rounding, folder, clock.count, clock.show.say, plan.calibration
        ).changes
    with stage("lower"):
        bundle = lower(bundle, dtype=precision.dtype, cache=precision.cache)
    with stage("write") as clock:
        written = onnx_files.write(bundle, folder, clock.count, changes=changes, outside=read_by_the_gpu)
        onnx_files.tell_links(written, clock)
        own = write_own_ops(folder / onnx_files.MODEL).name
        weights = stored_weights(folder / onnx_files.MODEL)
        save_weights(weights, folder)
        forget(folder)
    tokens = block_tokens(c.dim for c in bundle.cache)
    decoder = dense_decoder(cfg, bundle, precision, tokens)
    described = CudaPlan(dtype=precision.dtype, block_tokens=tokens, decoder=decoder, custom_ops=own)
    return EngineFacts(
        architecture=bundle.architecture,
        vocab_size=bundle.vocab_size,
        cache=bundle.cache,
        changes=tuple(map(record, changes)),
        files=(*written.files, own, WEIGHTS),
        engine=onnx_files.MODEL,
        loaded_bytes=sum(weight.length for weight in weights),
        plan=described.to_json(),
    )


def read_by_the_gpu(tensor: ir.TensorProtocol) -> bool:
    """Whether a constant is a weight: of all these, however small, the runtime is told. Others are sizes and single numbers."""
    return len(tensor.shape) > 0 and tensor.dtype != ir.DataType.INT64


def verify_graph(manifest: EngineManifest, folder: Path, checkpoint: Checkpoint, note: Note) -> Verification:
    """Compare the graph, computed in NumPy, with the float reference.

    Args:
        folder: of the engine.
    """
    note("reading the graph")
    runner = make_network_runner(folder, manifest)
    found = verify_network(runner, manifest.limits, checkpoint, note=note)
    if own := CudaPlan.of(manifest).custom_ops:
        note("the graph with custom ops")
        check_alike([runner, make_network_runner(folder, manifest, own)], manifest.vocab_size, manifest.limits)
    return found


def make_network_runner(folder: Path, manifest: EngineManifest, graph: str = "") -> NetworkRunner:
    """A runner that computes the engine in `folder` on the CPU.

    Args:
        graph: which of its graphs; by default the first one, of ONNX Runtime's own ops.
    """
    path = folder / (graph or manifest.engine)
    weights = load_weights(folder)
    if path.name != manifest.engine:
        read = {weight.name for weight in stored_weights(path)}
        weights = [weight for weight in weights if weight.name in read]
    return NetworkRunner(Interpreter(path, weights), manifest)
