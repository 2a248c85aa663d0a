"""Whether this machine can run an engine: asked before anything of it is loaded, answered in one sentence.

Needs no package of NVIDIA's. The driver itself is asked for GPUs, so that CUDA_VISIBLE_DEVICES counts as for the engine.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ManifestError
from ...manifest import EngineManifest, TensorRtPlan

NAMES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
_LEAST = (8, 0)  # compute capability of an engine that names none
_DATA_CENTER = ("9.0", "10.0", "10.3", "11.0")  # GPUs that TensorRT-RTX 1.7 does not run on, whatever the engine names
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...
_CHUNK = 1 << 24  # bytes hashed at a time
_DRIVER_ERRORS = {100: "the driver sees no GPU", 803: "its driver does not fit its GPU", 999: "the driver does not answer"}


@dataclass(frozen=True)
class Gpu:
    """What is asked of a GPU."""

    name: str
    compute_capability: str  # e.g. 8.9


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What is asked of a machine."""

    gpus: tuple[Gpu, ...]  # that this process may use, in its order; the first one runs the engine
    no_gpu: str = ""  # why there are none
    version: Callable[[str], str | None] = lambda flavour: None  # of an installed package; None: it cannot be used


def this_machine(library: str = "libcuda.so.1") -> Machine:
    """The machine that this runs on.

    Args:
        library: of the CUDA driver.
    """
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return Machine(gpus=(), no_gpu=f"no NVIDIA driver: {library} cannot be loaded", version=installed_version)
    count = ctypes.c_int()
    code = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if code or not count.value:
        why = _DRIVER_ERRORS.get(code or 100, "the driver cannot be used")
        return Machine(gpus=(), no_gpu=f"{why}, CUDA error {code or 100}", version=installed_version)
    return Machine(gpus=tuple(_gpu(driver, number) for number in range(count.value)), version=installed_version)


def _gpu(driver: ctypes.CDLL, number: int) -> Gpu:
    device, value, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(name, len(name), device)
    parts = []
    for attribute in (_MAJOR, _MINOR):
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        parts.append(str(value.value))
    return Gpu(name.value.decode(errors="replace"), ".".join(parts))


def installed_version(flavour: str) -> str | None:
    """Version of TensorRT's package of that name, or None: not installed, or its libraries do not load."""
    try:
        return str(load_package(flavour).__version__)
    except (ImportError, OSError):
        return None


def load_package(flavour: str) -> Any:
    """TensorRT's Python package; installed from its wheels alone, without the package that only names them, it has a suffix.

    Raises:
        ImportError: it is not installed, or its libraries do not load.
    """
    try:
        return importlib.import_module(flavour)
    except ModuleNotFoundError:
        return importlib.import_module(f"{flavour}_bindings")


def check_runnable(manifest: EngineManifest, folder: Path, machine: Machine | None = None) -> None:
    """Make sure that the engine of `manifest` in `folder` can run here; engines for the CPU always can.

    Args:
        machine: by default this one.

    Raises:
        ManifestError: names what was found, what is needed and the remedy.
    """
    if manifest.target != "tensorrt":
        return
    plan = manifest.tensorrt
    if plan is None:
        raise ManifestError("engine.json is of target tensorrt but says nothing of TensorRT", "build the engine again")
    if plan.flavour not in NAMES:
        raise ManifestError(
            f"engine.json names the package {plan.flavour!r}; known: {', '.join(NAMES)}", "build the engine again"
        )
    check_plan(folder / manifest.engine, plan)
    machine = machine or this_machine()
    check_gpu(manifest.engine, plan, machine)
    name, found = NAMES[plan.flavour], machine.version(plan.flavour)
    if found is None:
        raise ManifestError(
            f"{manifest.engine} needs {name} {plan.version}, which is not installed here (or its libraries do not load)",
            f"install it: pip install {plan.flavour}=={plan.version}",
        )
    if found != plan.version:
        raise ManifestError(
            f"{manifest.engine} was built with {name} {plan.version} and loads in no other version, but {found} is installed",
            f"install that version: pip install {plan.flavour}=={plan.version}; or build the engine again here",
        )


def check_plan(path: Path, plan: TensorRtPlan) -> None:
    """Make sure that the file of `plan` is the one that was built.

    Raises:
        ManifestError: it is missing or other bytes.
    """
    again = "build the engine again: make engine TARGET=tensorrt"
    try:
        size = path.stat().st_size
        if size != plan.plan_bytes:
            raise ManifestError(f"{path} is damaged: it has {size:,} bytes, engine.json says {plan.plan_bytes:,}", again)
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror}", again) from error
    if digest.hexdigest() != plan.plan_sha256:
        raise ManifestError(
            f"{path} is damaged: its SHA-256 is {digest.hexdigest()[:16]}..., engine.json says {plan.plan_sha256[:16]}...",
            again,
        )


def check_gpu(engine: str, plan: TensorRtPlan, machine: Machine) -> None:
    """Make sure that the first GPU is one that the engine was built for.

    Raises:
        ManifestError: there is none, or it has another compute capability.
    """
    wanted = " or ".join(plan.compute_capabilities) or f"{_LEAST[0]}.{_LEAST[1]} or later"
    elsewhere = "start it on a machine with such a GPU, or build for the CPU: make engine TARGET=cpu"
    if not machine.gpus:
        raise ManifestError(
            f"no supported GPU: {engine} needs an NVIDIA GPU of compute capability {wanted}, "
            f"and this machine has none that can be used ({machine.no_gpu})",
            elsewhere,
        )
    gpu = machine.gpus[0]
    if plan.flavour == "tensorrt_rtx" and gpu.compute_capability in _DATA_CENTER:
        raise ManifestError(
            f"no supported GPU: {engine} runs with TensorRT-RTX, which has no support for this machine's {gpu.name} "
            f"(compute capability {gpu.compute_capability})",
            "install full TensorRT (pip install tensorrt) on such a machine and build there: "
            f"triune build --target tensorrt --compute-capability {gpu.compute_capability}",
        )
    known = plan.compute_capabilities
    if gpu.compute_capability not in known if known else _parts(gpu.compute_capability) < _LEAST:
        raise ManifestError(
            f"no supported GPU: {engine} needs compute capability {wanted}, this machine's {gpu.name} has "
            f"{gpu.compute_capability}",
            f"build for it: triune build --target tensorrt --compute-capability {gpu.compute_capability}",
        )


def _parts(compute_capability: str) -> tuple[int, ...]:
    return tuple(map(int, compute_capability.split(".")))
