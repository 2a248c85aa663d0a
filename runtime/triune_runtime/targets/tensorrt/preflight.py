"""Whether this machine can run an engine: asked before anything of it is loaded, answered in one sentence.

Needs no package of NVIDIA's.
"""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any

from ...errors import ManifestError
from ...machine import Gpu, Machine, this_machine
from ...manifest import EngineManifest
from .. import DEFAULT_TARGET
from .elsewhere import other_python, version_of
from .plan import PlanFile, TensorRtPlan

NAMES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
_LEAST = (8, 0)  # compute capability of an engine that names none
_DATA_CENTER = ("9.0", "10.0", "10.3", "11.0")  # GPUs that TensorRT-RTX 1.7 does not run on, whatever the engine names
_CHUNK = 1 << 24  # bytes hashed at a time
_SUFFIX = "_bindings"  # of the package, where it was installed without the one that only names it


def load_package(flavour: str) -> Any:
    """TensorRT's Python package; installed from its wheels alone, without the package that only names them, it has a suffix.

    Raises:
        ImportError: it is not installed, or its libraries do not load.
    """
    try:
        return importlib.import_module(flavour)
    except ModuleNotFoundError:
        return importlib.import_module(flavour + _SUFFIX)


def check_engine(manifest: EngineManifest, folder: Path, machine: Machine | None = None) -> None:
    """Make sure that the engine of `manifest` in `folder` can run here.

    Args:
        machine: by default this one.

    Raises:
        ManifestError: names what was found, what is needed and the remedy.
    """
    plan = TensorRtPlan.of(manifest)
    if plan.flavour not in NAMES:
        raise ManifestError(
            f"engine.json names the package {plan.flavour!r}; known: {', '.join(NAMES)}", "build the engine again"
        )
    check_file(folder, PlanFile(name=manifest.engine, bytes=plan.plan_bytes, sha256=plan.plan_sha256))
    for file in (*plan.plans[1:], *plan.weights):
        check_file(folder, file)
    check_machine(manifest.engine, plan, machine)


def check_machine(engine: str, plan: TensorRtPlan, machine: Machine | None = None) -> Gpu:
    """Make sure that a machine has the GPU and the package that `engine` needs, and return that GPU.

    Args:
        machine: by default this one.

    Raises:
        ManifestError: it has not.
    """
    machine = machine or this_machine()
    check_gpu(engine, plan, machine)
    name, found = NAMES[plan.flavour], machine.version(plan.flavour) or machine.version(plan.flavour + _SUFFIX)
    if plan.fixed_sizes and (python := other_python()):
        found = version_of(python)
    if found is None:
        raise ManifestError(
            f"{engine} needs {name} {plan.version}, which is not installed here (or its libraries do not load)",
            f"install it: pip install {plan.flavour}=={plan.version}",
        )
    if found != plan.version:
        raise ManifestError(
            f"{engine} was built with {name} {plan.version} and loads in no other version, but {found} is installed",
            f"install that version: pip install {plan.flavour}=={plan.version}; or build the engine again here",
        )
    return machine.gpus[0]


def find_gpu(machine: Machine) -> Gpu:
    """The GPU that runs engines.

    Raises:
        ManifestError: there is none.
    """
    if not machine.gpus:
        raise ManifestError(
            "no supported GPU: an engine of target tensorrt can be proved only where it runs, and this machine has no GPU "
            f"that can be used ({machine.no_gpu})",
            "run `make verify` with the same build folder on a machine with an NVIDIA GPU of compute capability 8.0 or later",
        )
    return machine.gpus[0]


def check_file(folder: Path, file: PlanFile) -> None:
    """Make sure that a file of an engine in `folder` is the one that was built.

    Raises:
        ManifestError: it is missing or other bytes.
    """
    again, path = "build the engine again: make engine TARGET=tensorrt", folder / file.name
    try:
        size = path.stat().st_size
        if size != file.bytes:
            raise ManifestError(f"{path} is damaged: it has {size:,} bytes, engine.json says {file.bytes:,}", again)
        digest = hashlib.sha256()
        with path.open("rb") as data:
            while chunk := data.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror}", again) from error
    if digest.hexdigest() != file.sha256:
        raise ManifestError(
            f"{path} is damaged: its SHA-256 is {digest.hexdigest()[:16]}..., engine.json says {file.sha256[:16]}...",
            again,
        )


def check_gpu(engine: str, plan: TensorRtPlan, machine: Machine) -> None:
    """Make sure that the first GPU is one that the engine was built for.

    Raises:
        ManifestError: there is none, or it has another compute capability.
    """
    wanted = " or ".join(plan.compute_capabilities) or f"{_LEAST[0]}.{_LEAST[1]} or later"
    elsewhere = f"start it on a machine with such a GPU, or build for the CPU: make engine TARGET={DEFAULT_TARGET}"
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
