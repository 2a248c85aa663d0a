"""Lets tests/gpu run where there is no GPU, so that their own mistakes show before the first real run; proves no engine.

TensorRT-RTX really builds each engine for compute capability 8.9; stand-ins for CUDA and TensorRT then compute the same graph
with ONNX Runtime, which has no bfloat16:

    PYTHONPATH=tests python -m pytest -p support.gpu_rehearsal tests/gpu -m gpu -k "not bf16"
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fakes.cuda_runtime import FakeCuda
from fakes.host_engines import LoweredCompute
from fakes.tensorrt_package import FakeTensorRt
from triune_runtime.manifest import EngineManifest
from triune_runtime.targets.device import cuda
from triune_runtime.targets.tensorrt import preflight
from triune_runtime.targets.tensorrt import runner as tensorrt
from triune_runtime.targets.tensorrt.preflight import Gpu, Machine, installed_version


def pytest_configure(config: Any) -> None:
    """Before the tests are imported, which take names from these modules."""
    stand_in, real_runner = FakeCuda(), tensorrt.tensorrt_runner

    def runner(manifest: EngineManifest, folder: Path, **options: Any) -> Any:
        package = FakeTensorRt(manifest, LoweredCompute(folder / "network" / "model.onnx"), stand_in)
        tensorrt.load_package = lambda flavour: package
        return real_runner(manifest, folder, **options)

    cuda.cudart = stand_in
    preflight.this_machine = lambda library="": Machine(gpus=(Gpu("a rehearsal", "8.9"),), version=installed_version)
    tensorrt.tensorrt_runner = runner
