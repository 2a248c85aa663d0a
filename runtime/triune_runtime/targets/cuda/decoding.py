"""The fused kernel in front of an engine's graph, where both the engine and the GPU are such that it computes their decodes.

It is compiled while the weights are loaded. What it does not compute, or cannot be compiled, is left to the graph: one line
says why.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from ...errors import TriuneError
from ...manifest import Limits
from .fused.decoder import SOURCES, FusedDecoder, define_options, kernel_source
from .fused.names import DecoderNames
from .fused.program import FusedProgram
from .fused.shape import BATCHES, Gpu, cut
from .nvrtc import Kernel, Module, compile_cubin, own_architecture, own_sizes
from .plan import FUSED_SWITCH, CudaPlan
from .protocols import StepProgram, StreamDevice

LOG = logging.getLogger(__name__)
_SOURCE = SOURCES[-1]


class Compiling:
    """The kernel for each batch size of an engine that the GPU can take, being compiled."""

    def __init__(self, names: DecoderNames, batches: Mapping[int, tuple[str, ...]], gpu: Gpu) -> None:
        """
        Args:
            batches: compiler options by batch size; one at least.
        """
        self._names, self._gpu = names, gpu
        architecture, source = own_architecture(), kernel_source()
        pool = ThreadPoolExecutor(len(batches))
        self._cubins: dict[int, Future[bytes]] = {
            batch: pool.submit(compile_cubin, source, _SOURCE, architecture, options) for batch, options in batches.items()
        }
        pool.shutdown(wait=False)

    def in_front_of(self, graph: StepProgram, weights: Mapping[str, int], device: StreamDevice) -> StepProgram:
        """The kernel for the steps that it computes, and `graph` for all others; or `graph` alone.

        Args:
            weights: address of each of the engine's initializers.
        """
        try:
            decoders = {batch: self._decoder(batch, device) for batch in self._cubins}
        except TriuneError as error:
            LOG.warning("no fused decodes, the graph computes them all: %s", error)
            return graph
        LOG.info("one kernel computes decodes of %s", ", ".join(map(str, decoders)))
        return FusedProgram(graph, decoders, self._names, weights, device.stream)

    def _decoder(self, batch: int, device: StreamDevice) -> FusedDecoder:
        cubin = self._cubins[batch].result()

        def load(source: str, name: str, options: tuple[str, ...]) -> Kernel:
            return Module(cubin, _SOURCE).kernel(name)

        return FusedDecoder(self._names.shape, batch, self._gpu, device=device, compile_kernel=load)


def compile_decoders(plan: CudaPlan, limits: Limits, environ: Mapping[str, str] | None = None) -> Compiling | None:
    """Begin to compile the kernel for an engine's batch sizes; this thread has used the GPU before. None: the graph is to run.

    Args:
        environ: by default that of the process.

    Raises:
        ManifestError: what the plan says of the decoder does not fit.
    """
    if not plan.decoder:
        return None
    if (os.environ if environ is None else environ).get(FUSED_SWITCH, "").lower() == "off":
        LOG.info("%s=off: the graph computes all decodes", FUSED_SWITCH)
        return None
    names, gpu = DecoderNames.of(plan.decoder), Gpu(*own_sizes())
    cuts = {batch: cut(names.shape, batch, gpu) for batch in BATCHES if batch <= limits.max_sequences}
    batches = {batch: define_options(work.constants) for batch, work in cuts.items() if work is not None}
    if not batches:
        LOG.info("no fused decodes, the graph computes them all: the kernel is not for a model of these sizes on this GPU")
        return None
    return Compiling(names, batches, gpu)
