"""What the machine has that engines ask for: GPUs, their driver, the processor's instructions, versions of packages.

Needs no package of NVIDIA's. The driver itself is asked for GPUs, so that CUDA_VISIBLE_DEVICES counts as for the engine.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...
_DRIVER_ERRORS = {100: "the driver sees no GPU", 803: "its driver does not fit its GPU", 999: "the driver does not answer"}


@dataclass(frozen=True)
class Gpu:
    """What is asked of a GPU."""

    name: str
    compute_capability: str  # e.g. 8.9

    def __str__(self) -> str:
        return f"{self.name}, compute capability {self.compute_capability}"


@dataclass(frozen=True, kw_only=True)
class Processor:
    """What Linux tells of the processor; of several, of the first."""

    name: str | None = None  # None: it does not tell, as of most Arm ones
    instructions: frozenset[str] = frozenset()  # by Linux's names; empty: it does not tell


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What is asked of a machine."""

    gpus: tuple[Gpu, ...]  # that this process may use, in its order; the first one runs the engine
    no_gpu: str = ""  # why there are none
    cuda: str = ""  # the latest version of CUDA that the GPUs' driver runs, e.g. 13.0; empty: no driver
    instructions: frozenset[str] = frozenset()  # that the processor has beyond the common ones, e.g. avx512_vnni
    version: Callable[[str], str | None] = lambda module: None  # of a module's package; None: it cannot be used


def this_machine(library: str = "libcuda.so.1") -> Machine:
    """The machine that this runs on.

    Args:
        library: of the CUDA driver.
    """
    gpus: tuple[Gpu, ...] = ()
    no_gpu = cuda = ""
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        no_gpu = f"no NVIDIA driver: {library} cannot be loaded"
    else:
        count, number = ctypes.c_int(), ctypes.c_int()
        if not driver.cuDriverGetVersion(ctypes.byref(number)):
            cuda = f"{number.value // 1000}.{number.value % 1000 // 10}"
        code = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
        if code or not count.value:
            no_gpu = f"{_DRIVER_ERRORS.get(code or 100, 'the driver cannot be used')}, CUDA error {code or 100}"
        else:
            gpus = tuple(_gpu(driver, index) for index in range(count.value))
    return Machine(gpus=gpus, no_gpu=no_gpu, cuda=cuda, instructions=this_processor().instructions, version=installed_version)


def this_processor(listing: Path = Path("/proc/cpuinfo")) -> Processor:
    """The processor at hand.

    Args:
        listing: Linux's, which names instructions `flags` of an x86 processor, `Features` of an Arm one.
    """
    try:
        lines = listing.read_text("utf-8").splitlines()
    except OSError:
        return Processor()
    told: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        told.setdefault(name.strip(), value.strip())
    return Processor(
        name=told.get("model name"), instructions=frozenset((told.get("flags") or told.get("Features", "")).split())
    )


def installed_version(module: str) -> str | None:
    """What the module of that name says its version is, or None: not installed, or its libraries do not load."""
    try:
        return str(importlib.import_module(module).__version__)
    except (ImportError, OSError):
        return None


def _gpu(driver: ctypes.CDLL, number: int) -> Gpu:
    device, value, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(name, len(name), device)
    parts = []
    for attribute in (_MAJOR, _MINOR):
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        parts.append(str(value.value))
    return Gpu(name.value.decode(errors="replace"), ".".join(parts))
