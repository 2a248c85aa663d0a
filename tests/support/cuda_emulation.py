"""The kernels' sources as C++ on the host: see cuda_emulation.h. Needs g++."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++, which compiles the GPU's kernels for the host"
)
_ENTRY = """
extern "C" void emulate(unsigned blocks, unsigned threads, unsigned long long seed, void** a) {
    chaos = seed;
    for (unsigned b = 0; b < blocks; ++b) {
        std::memset((void*)&s, 0xCD, sizeof s);
        body = [a] { CALL; };
        run_block(b, threads);
    }
}
"""


class EmulatedKernel:
    """A kernel whose `launch` runs it at once on host memory, or hands that to `queue`."""

    def __init__(self, source: str, call: str, folder: Path) -> None:
        """
        Args:
            call: of the kernel, with its arguments as `*(TYPE*)a[NUMBER]`.
            folder: where it is compiled.
        """
        file, library = folder / "kernel.cpp", folder / "kernel.so"
        header = Path(__file__).with_suffix(".h")
        file.write_text(f'#include "{header}"\n{source}\n#line 1 "entry"\n{_ENTRY.replace("CALL", call)}', "utf-8")
        options = ("-std=c++17", "-O2", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-fPIC", "-shared", "-w")
        subprocess.run(["g++", *options, str(file), "-o", str(library)], check=True)
        self._run = ctypes.CDLL(str(library)).emulate
        self.threads = 0  # of a block; 0: as many as are asked for
        self.seed = 1  # of the order in which threads run
        self.queue: Callable[[Callable[[], None]], Any] = lambda do: do()

    def launch(
        self,
        stream: int,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[np.generic],
        shared_bytes: int = 0,
        cooperative: bool = False,
    ) -> None:
        """See `nvrtc.Kernel.launch`."""
        assert not cooperative, "blocks run one after the other here"
        values = [np.array(argument) for argument in arguments]
        places = np.array([value.ctypes.data for value in values], np.uint64)
        threads = self.threads or block[0]

        def run() -> None:
            assert len(values) == len(places), "they live as long as this"
            self._run(grid[0], threads, ctypes.c_uint64(self.seed), ctypes.c_void_p(places.ctypes.data))

        self.queue(run)
