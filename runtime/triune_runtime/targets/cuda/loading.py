"""An engine in a folder -> its runner, on the GPU that is there."""

from __future__ import annotations

from pathlib import Path

from ...manifest import EngineManifest
from ..device.cuda import CudaDevice
from .choosing import Chooser, compile_kernel
from .decoding import compile_decoders
from .feeding import KernelFeeder, compile_kernels
from .ops.loading import begin_ops
from .plan import CudaPlan
from .protocols import StepProgram
from .runner import PagedRunner, step_sizes
from .session import OrtProgram


def cuda_runner(
    manifest: EngineManifest, folder: Path, *, blocks: int | None = None, record: bool = True, chooses: bool = True
) -> PagedRunner:
    """The runner of an engine that `preflight.check_engine` accepts.

    Args:
        blocks, record: see `PagedRunner`.
        chooses: choose tokens on the GPU.

    Raises:
        ManifestError: the engine does not load, or is another than engine.json says.
        TriuneError: the GPU has not the memory, or cannot be used.
    """
    device = CudaDevice()
    feeder = KernelFeeder(device.stream, compile_kernels())
    plan = CudaPlan.of(manifest)
    decoders, ops = compile_decoders(plan, manifest.limits), begin_ops(plan)
    graph = OrtProgram(manifest, folder, device, device.stream, ops)
    program: StepProgram = graph if decoders is None else decoders.in_front_of(graph, graph.addresses, device)
    rows = step_sizes(manifest.limits).rows
    chooser = Chooser(device, compile_kernel(), vocab_size=manifest.vocab_size, rows=rows) if chooses else None
    return PagedRunner(manifest, device, program, feeder, chooser, blocks=blocks, record=record)
