"""TensorRT, or TensorRT-RTX, on an NVIDIA GPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..target import Target
from .plan import TensorRtPlan
from .preflight import check_engine, find_gpu

if TYPE_CHECKING:
    from ...machine import Machine
    from ...manifest import EngineManifest
    from ...runner import Runner


def _runner(manifest: EngineManifest, folder: Path) -> Runner:
    from .elsewhere import RunnerElsewhere, other_python

    plan = TensorRtPlan.of(manifest)
    if plan.fixed_sizes and (python := other_python()):
        return RunnerElsewhere(manifest, folder, python)
    from .runner import tensorrt_runner

    return tensorrt_runner(manifest, folder)


def _device(machine: Machine) -> str:
    return str(find_gpu(machine))


# Kernels for other shapes may sum in another order: a sequence's bits may depend on how many run beside it.
TARGET = Target(
    check=check_engine, runner=_runner, device=_device, bit_exact=False, gpu="needed",
    libraries=("libnvinfer", "libtensorrt_rtx"),
)  # fmt: skip
