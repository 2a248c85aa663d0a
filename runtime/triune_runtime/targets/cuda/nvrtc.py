"""CUDA C++ to kernels that run: compiled by NVRTC for the GPU that is there, loaded and launched. Knows no kernel.

Compiling needs NVIDIA's library but no GPU. The machine code is kept in this process's memory alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import TriuneError

try:
    from cuda.bindings import driver, nvrtc
except ImportError as error:
    raise TriuneError(f"the package cuda-bindings cannot be used: {error}", "install it: pip install cuda-bindings") from error

_PLAIN_SHARED = 48 << 10  # bytes of dynamic shared memory that a kernel may have without being asked about
EXACT = ("--fmad=false",)  # options: every operation is rounded by itself, as on the host, so that both compute the same bits


class NvrtcError(TriuneError):
    """Source that does not compile, or a library or a driver that does not do it."""


class Kernel:
    """A function of a module, on the GPU."""

    def __init__(self, name: str, function: Any) -> None:
        self.name = name
        self._function, self._shared = function, _PLAIN_SHARED

    @property
    def handle(self) -> int:
        """The driver's CUfunction, for what is not Python."""
        return int(self._function)

    def launch(
        self,
        stream: int,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[np.generic],
        shared_bytes: int = 0,
        cooperative: bool = False,
    ) -> None:
        """Queue it on a stream of the first GPU, which this thread has used before.

        Args:
            grid: blocks in each direction.
            block: threads of a block in each direction.
            arguments: NumPy scalars of exactly the kernel's types; addresses are `np.uint64`.
            shared_bytes: of dynamic shared memory, for each block.
            cooperative: all blocks are on the GPU at once, so that they may wait for each other; too many are refused.

        Raises:
            NvrtcError: the driver refuses it.
        """
        if shared_bytes > self._shared:
            attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            doing = f"giving {self.name} {shared_bytes:,} bytes of shared memory"
            _checked(driver.cuFuncSetAttribute(self._function, attribute, shared_bytes), doing)
            self._shared = shared_bytes
        values = [np.array(argument) for argument in arguments]  # the driver copies them during the call
        places = np.array([value.ctypes.data for value in values], np.uint64)
        sizes = (*grid, *block, shared_bytes, stream, places.ctypes.data)
        if cooperative:
            answer = driver.cuLaunchCooperativeKernel(self._function, *sizes)
        else:
            answer = driver.cuLaunchKernel(self._function, *sizes, 0)
        _checked(answer, f"launching {self.name}")


class Module:
    """Compiled source in the GPU's memory, where it stays until the process ends."""

    def __init__(self, cubin: bytes, name: str) -> None:
        """
        Args:
            cubin: machine code for the first GPU, which this thread has used before.

        Raises:
            NvrtcError: the driver does not take it.
        """
        self._name = name
        self._module = _checked(driver.cuModuleLoadData(cubin), f"loading {name}")

    @classmethod
    def compile(cls, source: str, name: str, options: tuple[str, ...] = ()) -> Module:
        """Compile for the GPU's own architecture and load it: see `compile_cubin` and `Module`."""
        return cls(compile_cubin(source, name, own_architecture(), options), name)

    def kernel(self, name: str) -> Kernel:
        """A kernel that is declared extern "C".

        Raises:
            NvrtcError: there is none of this name.
        """
        return Kernel(
            name, _checked(driver.cuModuleGetFunction(self._module, name.encode()), f"finding {name} in {self._name}")
        )


def own_architecture() -> str:
    """The architecture of the first GPU as NVRTC calls it, e.g. sm_90a: with what this very generation alone has.

    Raises:
        NvrtcError: there is no GPU that can be used.
    """
    kind = driver.CUdevice_attribute
    try:
        _checked(driver.cuInit(0), "starting CUDA")
    except RuntimeError as error:  # of cuda-bindings: there is no driver
        raise NvrtcError(f"NVIDIA's driver cannot be used: {_line(error)}", "install the driver of the GPU") from error
    device = _checked(driver.cuDeviceGet(0), "choosing the first GPU")
    major, minor = (
        int(_checked(driver.cuDeviceGetAttribute(attribute, device), "asking what the GPU is"))
        for attribute in (kind.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, kind.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)
    )
    return f"sm_{major}{minor}" + ("a" if major >= 9 else "")


def own_sizes() -> tuple[int, int]:
    """Of the first GPU, which this thread has used before: multiprocessors, and bytes of shared memory of a block at most.

    Raises:
        NvrtcError: the driver does not say.
    """
    kind = driver.CUdevice_attribute
    device = _checked(driver.cuDeviceGet(0), "choosing the first GPU")
    asked = (kind.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, kind.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
    count, shared = (int(_checked(driver.cuDeviceGetAttribute(a, device), "asking how large the GPU is")) for a in asked)
    return count, shared


def compile_cubin(source: str, name: str, architecture: str, options: tuple[str, ...] = ()) -> bytes:
    """Machine code of CUDA C++.

    Args:
        source: without files to include, unless `options` say where they are.
        name: of the source, for messages.
        architecture: e.g. sm_90.
        options: of NVRTC, further ones.

    Raises:
        NvrtcError: NVRTC is not there, does not know the architecture, or the source has a mistake.
    """
    try:
        program = _compiled_by(nvrtc.nvrtcCreateProgram(source.encode(), name.encode(), 0, None, None), f"reading {name}")
    except RuntimeError as error:  # of cuda-bindings
        raise NvrtcError(
            f"NVRTC, which compiles for the GPU, is not there: {_line(error)}", "install it: pip install nvidia-cuda-nvrtc"
        ) from error
    try:
        given = [option.encode() for option in (f"--gpu-architecture={architecture}", "--std=c++17", *options)]
        code, *_ = nvrtc.nvrtcCompileProgram(program, len(given), given)
        if code != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise NvrtcError(f"{name} does not compile for {architecture}: {_log(program) or code.name}", _remedy(code))
        cubin = bytes(int(_compiled_by(nvrtc.nvrtcGetCUBINSize(program), f"compiling {name}")))
        _compiled_by(nvrtc.nvrtcGetCUBIN(program, cubin), f"compiling {name}")
        return cubin
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _log(program: Any) -> str:
    """The mistakes that the compiler names, on one line."""
    log = bytes(int(_compiled_by(nvrtc.nvrtcGetProgramLogSize(program), "reading the compiler's log")))
    _compiled_by(nvrtc.nvrtcGetProgramLog(program, log), "reading the compiler's log")
    lines = [line.strip() for line in log.rstrip(b"\0").decode(errors="replace").splitlines()]
    return "; ".join(line for line in lines if "error: " in line) or " ".join(lines)


def _remedy(code: Any) -> str:
    if code == nvrtc.nvrtcResult.NVRTC_ERROR_INVALID_OPTION:
        return "a GPU newer than NVRTC needs a newer one: pip install --upgrade nvidia-cuda-nvrtc"
    return "this is a fault of Triune or of this version of NVRTC; please report it with this message"


def _line(error: RuntimeError) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _compiled_by(answer: tuple[Any, ...], doing: str) -> Any:
    """What a call of NVRTC returned beside its error code."""
    code, *values = answer
    if code != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise NvrtcError(f"{doing} failed: {code.name} (NVRTC error {int(code)})", _remedy(code))
    return values[0] if values else None


def _checked(answer: tuple[Any, ...], doing: str) -> Any:
    """What a call of the driver returned beside its error code."""
    code, *values = answer
    if code != driver.CUresult.CUDA_SUCCESS:
        raise NvrtcError(
            f"{doing} failed: {code.name} (CUDA driver error {int(code)})",
            "see nvidia-smi for what else uses the GPU and which driver it has; CUDA 13 needs one of version 580 or later",
        )
    return values[0] if values else None
