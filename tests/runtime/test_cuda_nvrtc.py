"""Compiling for a GPU, loading and launching, over a stand-in for the driver. Run: pytest tests/runtime/test_cuda_nvrtc.py

What compiles needs the library NVRTC (requirements/cuda.txt), no GPU. tests/gpu runs the real driver.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cuda.bindings", reason="needs cuda-bindings: requirements/tensorrt.txt")

from cuda.bindings import driver as real

from support.nvrtc import needs_nvrtc
from triune_runtime.targets.cuda import nvrtc
from triune_runtime.targets.cuda.nvrtc import Module, NvrtcError, compile_cubin, own_architecture, own_sizes

SOURCE = 'extern "C" __global__ void twice(float* numbers, int count) { if (threadIdx.x < count) numbers[threadIdx.x] *= 2; }'
OK, BAD = real.CUresult.CUDA_SUCCESS, real.CUresult.CUDA_ERROR_INVALID_VALUE


class FakeDriver:
    """`cuda.bindings.driver` of a GPU with one kernel, `twice`, which takes an address and an int."""

    def __init__(self, capability: tuple[int, int] = (9, 0)) -> None:
        self.capability = capability
        self.launched: list[tuple[Any, ...]] = []
        self.shared: list[int] = []

    def __getattr__(self, name: str) -> Any:
        assert name in ("CUresult", "CUdevice_attribute", "CUfunction_attribute"), name
        return getattr(real, name)

    def cuInit(self, flags: int) -> tuple[Any]:
        return (OK,)

    def cuDeviceGet(self, ordinal: int) -> tuple[Any, int]:
        assert ordinal == 0
        return OK, 0

    def cuDeviceGetAttribute(self, attribute: Any, device: int) -> tuple[Any, int]:
        sizes = {"MULTIPROCESSOR_COUNT": 132, "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": 232_448}
        known = {name: value for name, value in sizes.items() if attribute.name.endswith(name)}
        return OK, known.popitem()[1] if known else self.capability["MINOR" in attribute.name]

    def cuModuleLoadData(self, image: bytes) -> tuple[Any, Any]:
        return (OK, "module") if image[:4] == b"\x7fELF" else (real.CUresult.CUDA_ERROR_INVALID_IMAGE, None)

    def cuModuleGetFunction(self, module: str, name: bytes) -> tuple[Any, Any]:
        assert module == "module"
        return (OK, "function") if name == b"twice" else (real.CUresult.CUDA_ERROR_NOT_FOUND, None)

    def cuFuncSetAttribute(self, function: str, attribute: Any, value: int) -> tuple[Any]:
        self.shared.append(value)
        return (OK,)

    def cuLaunchKernel(self, function: str, *rest: Any) -> tuple[Any]:
        *sizes, shared, stream, places, extra = rest
        if shared > (self.shared[-1] if self.shared else 48 << 10):
            return (BAD,)
        address, count = (ctypes.c_void_p * 2).from_address(places)
        values = ctypes.c_uint64.from_address(address).value, ctypes.c_int32.from_address(count).value
        self.launched.append((function, *sizes, shared, stream, *values, extra))
        return (OK,)

    def cuLaunchCooperativeKernel(self, function: str, *rest: Any) -> tuple[Any]:
        return self.cuLaunchKernel(function, *rest, "cooperative")


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    fake = FakeDriver()
    monkeypatch.setattr(nvrtc, "driver", fake)
    return fake


@needs_nvrtc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_89", "sm_90a", "sm_100a"])
def test_source_compiles_without_a_gpu(architecture: str) -> None:
    assert compile_cubin(SOURCE, "twice.cu", architecture)[:4] == b"\x7fELF"


@needs_nvrtc
def test_a_mistake_is_named_in_one_line() -> None:
    with pytest.raises(NvrtcError, match=r"^bad\.cu does not compile for sm_90: bad\.cu\(2\): error: .*nothing_here[^\n]*$"):
        compile_cubin("__global__ void bad() {\n nothing_here(); }", "bad.cu", "sm_90")


@needs_nvrtc
def test_an_architecture_that_nvrtc_does_not_know_asks_for_a_newer_one() -> None:
    with pytest.raises(NvrtcError, match=r"sm_999.*pip install --upgrade nvidia-cuda-nvrtc"):
        compile_cubin(SOURCE, "twice.cu", "sm_999")


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent:
        def nvrtcCreateProgram(self, *arguments: Any) -> Any:
            raise RuntimeError("no libnvrtc\nlooked here\nand there")

    monkeypatch.setattr(nvrtc, "nvrtc", Absent())
    with pytest.raises(NvrtcError, match=r"is not there: no libnvrtc; hint: .*pip install nvidia-cuda-nvrtc"):
        compile_cubin(SOURCE, "twice.cu", "sm_90")


def test_a_driver_that_is_not_there_is_named(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(flags: int) -> Any:
        raise RuntimeError("no libcuda")

    monkeypatch.setattr(driver, "cuInit", absent)
    with pytest.raises(NvrtcError, match="driver cannot be used: no libcuda"):
        own_architecture()


@pytest.mark.parametrize(
    ("capability", "name"), [((8, 0), "sm_80"), ((8, 9), "sm_89"), ((9, 0), "sm_90a"), ((12, 1), "sm_121a")]
)
def test_the_architecture_is_the_gpus_own(driver: FakeDriver, capability: tuple[int, int], name: str) -> None:
    driver.capability = capability
    assert own_architecture() == name


def test_the_sizes_are_the_gpus_own(driver: FakeDriver) -> None:
    assert own_sizes() == (132, 232_448)


@needs_nvrtc
def test_a_kernel_gets_its_arguments(driver: FakeDriver) -> None:
    kernel = Module.compile(SOURCE, "twice.cu").kernel("twice")
    kernel.launch(77, (1, 2, 3), (32, 1, 1), (np.uint64(2**63 + 1), np.int32(-5)))
    assert driver.launched == [("function", 1, 2, 3, 32, 1, 1, 0, 77, 2**63 + 1, -5, 0)]


def test_blocks_that_wait_for_each_other_are_launched_together(driver: FakeDriver) -> None:
    kernel = Module(b"\x7fELF", "twice.cu").kernel("twice")
    kernel.launch(77, (132, 1, 1), (32, 1, 1), (np.uint64(9), np.int32(5)), 60_000, cooperative=True)
    assert driver.launched == [("function", 132, 1, 1, 32, 1, 1, 60_000, 77, 9, 5, "cooperative")]


def test_more_shared_memory_is_asked_for_once(driver: FakeDriver) -> None:
    kernel = Module(b"\x7fELF", "twice.cu").kernel("twice")
    for size in (48 << 10, 100_000, 100_000):
        kernel.launch(77, (1, 1, 1), (32, 1, 1), (np.uint64(1), np.int32(1)), size)
    assert driver.shared == [100_000]
    assert len(driver.launched) == 3


def test_what_the_driver_refuses_is_named(driver: FakeDriver) -> None:
    with pytest.raises(NvrtcError, match=r"loading twice\.cu failed: CUDA_ERROR_INVALID_IMAGE"):
        Module(b"none", "twice.cu")
    with pytest.raises(NvrtcError, match=r"finding thrice in twice\.cu failed: CUDA_ERROR_NOT_FOUND"):
        Module(b"\x7fELF", "twice.cu").kernel("thrice")
