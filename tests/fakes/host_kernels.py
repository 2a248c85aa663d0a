"""Compiles CUDA kernels for the CPU (cuda_on_host.h), and memory for them to work on: a stand-in for a GPU of few blocks."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER = Path(__file__).with_name("cuda_on_host.h")
BLOCK_THREADS = 256


class HostMemory:
    """See `Device`: host memory, in which everything is done at once. Graphs and strided copies are not needed here."""

    def __init__(self) -> None:
        self._kept: list[NDArray[Any]] = []

    def allocate(self, size: int) -> int:
        return self.put(np.zeros(size, np.uint8))

    def put(self, values: NDArray[Any]) -> int:
        """Address of a copy of `values`, a multiple of 256."""
        memory = np.zeros(values.nbytes + 512, np.uint8)
        start = -memory.ctypes.data % 256
        memory[start : start + values.nbytes] = np.ascontiguousarray(values).view(np.uint8).ravel()
        self._kept.append(memory)
        return memory.ctypes.data + start

    def host(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        return np.zeros(shape, dtype)

    def upload(self, target: int, source: NDArray[Any]) -> None:
        ctypes.memmove(target, source.ctypes.data, source.nbytes)

    def read(self, source: int, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """What lies at an address."""
        found = np.zeros(shape, dtype)
        ctypes.memmove(found.ctypes.data, source, found.nbytes)
        return found

    def download(self, target: NDArray[Any], source: int) -> None:
        ctypes.memmove(target.ctypes.data, source, target.nbytes)

    def copy_rows(self, target: int, source: int, *, rows: int, width: int, pitch: int) -> None:
        raise NotImplementedError

    def capture(self, queue: Callable[[], None]) -> None:
        return None

    def synchronize(self) -> None:
        pass


class HostKernel:
    """A kernel that runs on the CPU."""

    def __init__(self, library: Path) -> None:
        found = ctypes.CDLL(str(library))
        self._run, self._first = found.run, ctypes.c_uint.in_dll(found, "first_block")
        self._run.restype = ctypes.c_bool

    def begin_with(self, block: int) -> None:
        """Let this block run first from now on."""
        self._first.value = block

    def launch(
        self,
        stream: int,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[Any],
        shared_bytes: int = 0,
        cooperative: bool = False,
    ) -> None:
        """Run it to its end."""
        assert block == (BLOCK_THREADS, 1, 1) and grid[1:] == (1, 1)
        values = [np.array(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        assert self._run(pointers, grid[0], ctypes.c_size_t(shared_bytes)), "a thread gave up, or nobody got on any more"


def compile_for_host(folder: Path) -> Callable[[str, str, tuple[str, ...]], HostKernel]:
    """A compiler of kernels, which leaves its files in `folder`. Needs g++."""

    def compile_kernel(source: str, name: str, options: tuple[str, ...]) -> HostKernel:
        path, library = folder / "kernel.cpp", folder / "kernel.so"
        entry = 'extern "C" bool run(void** arguments, int blocks, size_t shared_bytes)'
        entry += f"{{ return host::launch_kernel({name}, arguments, blocks, shared_bytes); }}"
        path.write_text(f'#include "{HEADER}"\n{source}\n{entry}\n', "utf-8")
        flags = ("-std=c++17", "-O1", "-fno-strict-aliasing", "-shared", "-fPIC", "-Wno-unknown-pragmas")
        done = subprocess.run(["g++", *flags, *options, "-o", library, path], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[:4000]
        return HostKernel(library)

    return compile_kernel
