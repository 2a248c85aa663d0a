"""Lets tests/gpu run where there is no GPU, so that their own mistakes show before the first real run; proves no engine.

TensorRT-RTX really builds each engine for compute capability 8.9; stand-ins for CUDA and TensorRT then compute the same graph
with ONNX Runtime, which has no bfloat16:

    PYTHONPATH=tests python -m pytest -p support.gpu_rehearsal tests/gpu -m gpu -k "not bf16"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fakes.cuda_runtime import FakeCuda
from fakes.host_engines import LoweredCompute
from fakes.tensorrt_package import FakeTensorRt
from triune_runtime import machine
from triune_runtime.machine import Gpu, Machine, installed_version
from triune_runtime.manifest import EngineManifest
from triune_runtime.targets.device import cuda
from triune_runtime.targets.tensorrt import preflight
from triune_runtime.targets.tensorrt import runner as tensorrt

GPU = Gpu("a rehearsal", "8.9")
Arrays = Mapping[str, Any]
_real_runner = tensorrt.tensorrt_runner


def pytest_configure(config: Any) -> None:
    """Before the tests are imported, which take names from these modules."""
    rehearse(setattr)


def rehearse(
    put: Callable[[object, str, Any], None], gpu: Gpu = GPU, spoil: Callable[[Arrays], Arrays] = lambda found: found
) -> None:
    """Pretend that this machine has `gpu`.

    Args:
        put: sets an attribute of a module, e.g. `monkeypatch.setattr`.
        spoil: what becomes of an engine's outputs.
    """
    stand_in = FakeCuda()

    def runner(manifest: EngineManifest, folder: Path, **options: Any) -> Any:
        compute = LoweredCompute(folder / "network" / "model.onnx")
        package = FakeTensorRt(manifest, lambda inputs: spoil(compute(inputs)), stand_in)
        put(tensorrt, "load_package", lambda flavour: package)
        return _real_runner(manifest, folder, **options)

    put(cuda, "cudart", stand_in)
    for module in (machine, preflight):
        put(module, "this_machine", lambda library="": Machine(gpus=(gpu,), version=installed_version))
    put(tensorrt, "tensorrt_runner", runner)
