"""The ops of an engine's second graph, ready to be registered: kernels compiled while weights are loaded, and the library.

Where they cannot be had, the engine's first graph runs, of ONNX Runtime's own ops alone: one line says why.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ....errors import TriuneError
from ..nvrtc import Module, compile_cubin, own_architecture
from ..plan import OPS_SWITCH, CudaPlan
from .kernels import FAST, NAMES, SOURCE, options, source
from .library import BUILD, OpsLibrary, library_path

LOG = logging.getLogger(__name__)
PROVIDER = "CUDAExecutionProvider"
_WITHOUT = "no custom ops, ONNX Runtime's own compute all"


class OwnOps:
    """The kernels, being compiled; this thread has used the GPU before."""

    def __init__(self, graph: str, dtype: str, library: Path) -> None:
        """
        Args:
            graph: name of the file in which the ops are.
        """
        self.graph, self._dtype, self._library = graph, dtype, library
        pool = ThreadPoolExecutor(1)
        arguments = (source(), SOURCE, own_architecture(), (*options(dtype), *FAST))
        self._cubin: Future[bytes] = pool.submit(compile_cubin, *arguments)
        pool.shutdown(wait=False)

    def library(self) -> Path | None:
        """The library for a session to register, once the kernels are on the GPU; None: there will be none."""
        try:
            module = Module(self._cubin.result(), SOURCE)
            library = OpsLibrary(self._library, _launch_address(), PROVIDER)
            library.use({name: module.kernel(name).handle for name in NAMES}, self._dtype)
        except TriuneError as error:
            LOG.warning("%s: %s", _WITHOUT, error)
            return None
        LOG.info("custom ops of Triune compute gates, and what comes before attention")
        return library.path


def begin_ops(plan: CudaPlan, environ: Mapping[str, str] | None = None, library: Path | None = None) -> OwnOps | None:
    """Begin to compile the kernels for an engine; None: its first graph is to run.

    Args:
        environ: by default that of the process.
        library: by default where `make kernels` puts it.
    """
    if not plan.custom_ops:
        return None
    if (os.environ if environ is None else environ).get(OPS_SWITCH, "").lower() == "off":
        LOG.info("%s=off: ONNX Runtime's own ops compute all", OPS_SWITCH)
        return None
    path = library or library_path()
    if not path.is_file():
        LOG.warning("%s: their library is not built; prompts and large batches are faster with it: %s", _WITHOUT, BUILD)
        return None
    return OwnOps(plan.custom_ops, plan.dtype, path)


def _launch_address() -> int:
    try:
        found = ctypes.cast(ctypes.CDLL("libcuda.so.1").cuLaunchKernel, ctypes.c_void_p).value
    except (OSError, AttributeError) as error:
        raise TriuneError(f"NVIDIA's driver cannot be used: {error}", "install the driver of the GPU") from error
    assert found is not None
    return found
