"""Whether this machine can run an engine: asked before anything of it is loaded, answered in one sentence.

How much memory is free is asked when the engine is loaded: see `weights` and `pool`.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import ManifestError
from ...machine import Gpu, Machine, this_machine
from ...manifest import EngineManifest
from .. import DEFAULT_TARGET
from ..device.stored import WEIGHTS
from .packages import INSTALL, use
from .plan import CudaPlan

_LEAST = (8, 0)  # compute capability: bfloat16, and the attention that is used
_LEAST_FP8 = (8, 9)  # for a KV cache of eight-bit floats
_LEAST_CUDA = (13, 0)  # that the driver must run: ONNX Runtime and cuDNN are built for it
_LEAST_ORT = (1, 31)  # whose attention over blocks takes bounds from the host
_ELSEWHERE = f"start it on a machine with such a GPU, or build for the CPU: make engine TARGET={DEFAULT_TARGET}"


def check_engine(manifest: EngineManifest, folder: Path, machine: Machine | None = None) -> None:
    """Make sure that the engine of `manifest` in `folder` can run here.

    Args:
        machine: by default this one.

    Raises:
        ManifestError: names what was found, what is needed and the remedy.
    """
    CudaPlan.of(manifest)
    for name in (manifest.engine, WEIGHTS):
        if not (folder / name).is_file():
            raise ManifestError(f"{folder / name} is missing", "build the engine again")
    if machine is None:
        use()  # before anything asks which ONNX Runtime is here
    found = machine or this_machine()
    eight_bit = any(tensor.dtype == "float8_e4m3fn" for tensor in manifest.cache)
    check_gpu(manifest.engine, found, _LEAST_FP8 if eight_bit else _LEAST)
    check_packages(manifest.engine, found)
    if machine is None:
        _check_provider(manifest.engine)


def find_gpu(machine: Machine) -> Gpu:
    """The GPU that runs engines.

    Raises:
        ManifestError: there is none.
    """
    check_gpu("an engine of this target", machine)
    return machine.gpus[0]


def check_gpu(engine: str, machine: Machine, at_least: tuple[int, int] = _LEAST) -> None:
    """Make sure that there is a GPU, new enough, with a driver that is.

    Args:
        at_least: its compute capability.

    Raises:
        ManifestError: it is not so.
    """
    least = ".".join(map(str, at_least))
    if not machine.gpus:
        raise ManifestError(
            f"no supported GPU: {engine} needs an NVIDIA GPU of compute capability {least} or later, and this machine has none "
            f"that can be used ({machine.no_gpu})",
            _ELSEWHERE,
        )
    gpu = machine.gpus[0]
    if _numbers(gpu.compute_capability) < at_least:
        raise ManifestError(
            f"no supported GPU: {engine} needs compute capability {least} or later, this machine's {gpu.name} has "
            f"{gpu.compute_capability}",
            _ELSEWHERE,
        )
    if machine.cuda and _numbers(machine.cuda) < _LEAST_CUDA:
        raise ManifestError(
            f"{engine} needs a driver for CUDA {'.'.join(map(str, _LEAST_CUDA))}, the driver of this machine runs CUDA "
            f"{machine.cuda} at most",
            "update NVIDIA's driver to version 580 or later",
        )


def check_packages(engine: str, machine: Machine) -> None:
    """Make sure that the packages are there that run an engine.

    Raises:
        ManifestError: one is not, or is too old.
    """
    least = ".".join(map(str, _LEAST_ORT))
    found = machine.version("onnxruntime")
    if found is None or _numbers(found) < _LEAST_ORT:
        raise ManifestError(
            f"{engine} needs ONNX Runtime {least} or later for CUDA, and "
            + (f"{found} is installed" if found else "it is not installed here (or its libraries do not load)"),
            f"install it: pip install 'onnxruntime-gpu[cuda,cudnn]>={least}'",
        )
    if machine.version("cuda.bindings") is None:
        raise ManifestError(
            f"{engine} needs the package cuda-bindings, which is not installed here", "install it: pip install cuda-bindings"
        )


def _check_provider(engine: str) -> None:
    from .session import PROVIDER, has_provider  # imports what only such a machine has

    if not has_provider():
        raise ManifestError(
            f"{engine} needs ONNX Runtime for CUDA, and the one that is installed has no {PROVIDER}",
            INSTALL,
        )


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
