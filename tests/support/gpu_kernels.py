"""Compiles and launches the fused kernel on a GPU, for its trial: NVRTC and the driver by cuda-bindings, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from cuda.bindings import driver, nvrtc

from triune_runtime.targets.cuda.fused.shape import Gpu
from triune_runtime.targets.device.cuda import CudaError


def checked(answer: tuple[Any, ...]) -> Any:
    """What a call returned beside its error code.

    Raises:
        CudaError: it failed.
    """
    code, *values = answer
    if int(code):
        raise CudaError(f"{code!r}")
    return values[0] if len(values) == 1 else values


class CooperativeKernel:
    """All of its blocks are on the GPU at once, or its launch fails."""

    def __init__(self, cubin: bytes, name: str) -> None:
        self._function = checked(driver.cuModuleGetFunction(checked(driver.cuModuleLoadData(cubin)), name.encode()))
        attributes = driver.CUfunction_attribute
        self.registers = checked(driver.cuFuncGetAttribute(attributes.CU_FUNC_ATTRIBUTE_NUM_REGS, self._function))
        self.local_bytes = checked(driver.cuFuncGetAttribute(attributes.CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, self._function))

    def launch(
        self,
        stream: int,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[Any],
        shared_bytes: int = 0,
        cooperative: bool = False,
    ) -> None:
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        checked(driver.cuFuncSetAttribute(self._function, attribute, shared_bytes))
        values = [np.array(argument) for argument in arguments]
        places = np.array([value.ctypes.data for value in values], np.uint64)
        launch = driver.cuLaunchCooperativeKernel if cooperative else driver.cuLaunchKernel
        more = () if cooperative else (0,)
        checked(launch(self._function, *grid, *block, shared_bytes, stream, places.ctypes.data, *more))


def this_gpu() -> Gpu:
    """The first GPU, which this thread has used before."""
    device, kind = checked(driver.cuDeviceGet(0)), driver.CUdevice_attribute
    asked = (kind.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, kind.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
    return Gpu(*(int(checked(driver.cuDeviceGetAttribute(attribute, device))) for attribute in asked))


def compile_cubin(source: str, architecture: str, options: tuple[str, ...]) -> bytes:
    """Machine code, e.g. for sm_90."""
    program = checked(nvrtc.nvrtcCreateProgram(source.encode(), b"step.cu", 0, None, None))
    given = [option.encode() for option in (f"--gpu-architecture={architecture}", "--std=c++17", *options)]
    code, *_ = nvrtc.nvrtcCompileProgram(program, len(given), given)
    if int(code):
        log = bytes(int(checked(nvrtc.nvrtcGetProgramLogSize(program))))
        nvrtc.nvrtcGetProgramLog(program, log)
        raise AssertionError(log.decode(errors="replace")[:4000])
    cubin = bytes(int(checked(nvrtc.nvrtcGetCUBINSize(program))))
    checked(nvrtc.nvrtcGetCUBIN(program, cubin))
    return cubin
