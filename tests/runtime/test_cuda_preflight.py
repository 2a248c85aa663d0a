"""An engine for ONNX Runtime CUDA on a machine that cannot run it is refused in one sentence.

Run: pytest tests/runtime/test_cuda_preflight.py
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fakes.cuda_engines import cuda_manifest
from triune_runtime.errors import ManifestError
from triune_runtime.machine import Gpu, Machine
from triune_runtime.manifest import Limits
from triune_runtime.targets.cuda import TARGET, preflight

MANIFEST = cuda_manifest(7, Limits(), 16)
VERSIONS = {"onnxruntime": "1.31.1", "cuda.bindings": "13.0.1"}
GOOD = Machine(gpus=(Gpu("H100", "9.0"),), cuda="13.0", version=VERSIONS.get)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"graph")
    (tmp_path / "weights.json").write_text("[]")
    return tmp_path


def test_a_machine_that_fits_is_accepted(folder: Path) -> None:
    TARGET.check(MANIFEST, folder, GOOD)
    assert TARGET.device(GOOD) == "H100, compute capability 9.0" and not TARGET.bit_exact


@pytest.mark.parametrize(
    ("machine", "message", "remedy"),
    [
        (Machine(gpus=(), no_gpu="the driver sees no GPU, CUDA error 100"),
         "no supported GPU: model.onnx needs an NVIDIA GPU of compute capability 8.0 or later, and this machine has none that "
         "can be used (the driver sees no GPU, CUDA error 100)", "make engine TARGET=cpu"),
        (dataclasses.replace(GOOD, gpus=(Gpu("Tesla T4", "7.5"),)),
         "no supported GPU: model.onnx needs compute capability 8.0 or later, this machine's Tesla T4 has 7.5", "TARGET=cpu"),
        (dataclasses.replace(GOOD, cuda="12.8"),
         "model.onnx needs a driver for CUDA 13.0, the driver of this machine runs CUDA 12.8 at most", "version 580 or later"),
        (dataclasses.replace(GOOD, version={"cuda.bindings": "13"}.get),
         "model.onnx needs ONNX Runtime 1.31 or later for CUDA, and it is not installed here", "pip install 'onnxruntime-gpu"),
        (dataclasses.replace(GOOD, version=(VERSIONS | {"onnxruntime": "1.30.2"}).get),
         "model.onnx needs ONNX Runtime 1.31 or later for CUDA, and 1.30.2 is installed", "pip install 'onnxruntime-gpu"),
        (dataclasses.replace(GOOD, version={"onnxruntime": "1.32.0"}.get),
         "model.onnx needs the package cuda-bindings, which is not installed here", "pip install cuda-bindings"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_with_a_remedy(folder: Path, machine: Machine, message: str, remedy: str) -> None:
    with pytest.raises(ManifestError) as caught:
        TARGET.check(MANIFEST, folder, machine)
    assert message in str(caught.value) and remedy in (caught.value.hint or "")


def test_a_cache_of_eight_bit_floats_needs_a_gpu_that_has_them(folder: Path) -> None:
    eight = dataclasses.replace(MANIFEST, cache=(dataclasses.replace(MANIFEST.cache[0], dtype="float8_e4m3fn"),))
    TARGET.check(eight, folder, GOOD)
    with pytest.raises(ManifestError, match=r"needs compute capability 8\.9 or later, this machine's A100 has 8\.0"):
        TARGET.check(eight, folder, dataclasses.replace(GOOD, gpus=(Gpu("A100", "8.0"),)))


def test_an_engine_without_its_graph_or_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"model\.onnx is missing"):
        TARGET.check(MANIFEST, tmp_path, GOOD)
    with pytest.raises(ManifestError, match="does not fit this runtime"):
        TARGET.check(dataclasses.replace(MANIFEST, plan={}), tmp_path, GOOD)


def test_onnx_runtime_for_the_cpu_alone_is_told_how_to_get_the_other_beside_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "this_machine", lambda: GOOD)
    with pytest.raises(ManifestError, match="the one that is installed has no CUDAExecutionProvider") as caught:
        TARGET.check(MANIFEST, folder, None)
    assert "uninstall" not in (caught.value.hint or "") and "make up TARGET=cuda" in (caught.value.hint or "")
