"""Loading graphs with ONNX Runtime on the CPU, and binding arrays to them."""

from __future__ import annotations

import ctypes
import functools
import math
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ...allocator import return_free_memory
from ...errors import ManifestError
from .processor import has_vnni

_NO_TILES = "ORT_GQA_DISABLE_FLASH_ATTENTION"  # of ONNX Runtime


def untouched(shape: tuple[int, ...], dtype: str) -> NDArray[np.generic]:
    """Zeros that take memory only where they are written, a small page at a time.

    NumPy asks for huge pages, of which the first token of every head would take a whole one: 1.5 GB at once instead of as
    sequences grow.

    Raises:
        ManifestError: the system reserves no room for so many.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise ManifestError(
            f"the system reserves no {size / 1e9:,.3g} GB for one tensor of the KV cache, which {shape[0]} sequences of "
            f"{shape[2]:,} tokens need: {error}",
            "free memory, or build with a smaller --max-length or --max-sequences",
        ) from error
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, dtype).reshape(shape)


def release(buffer: NDArray[np.generic], length: int) -> None:
    """Give back memory of a slot's buffer [heads, positions, dim], made by `untouched`: zeros lie there again.

    Args:
        length: positions of every head that stay as they are.
    """
    stretches = [buffer] if length == 0 else [head[length:] for head in buffer]
    for stretch in stretches:
        begin = -(-stretch.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
        size = (stretch.ctypes.data + stretch.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - begin
        if size > 0:
            _madvise()(begin, size, mmap.MADV_DONTNEED)


@functools.cache
def _madvise() -> Callable[..., int]:
    function = ctypes.CDLL(None).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function


def load(path: Path, threads: int, *, tiles: bool = True) -> onnxruntime.InferenceSession:
    """A session over the graph at `path`, with `threads` threads for a run.

    Args:
        tiles: whether attention works in tiles, see `computes_in_tiles`; then what the environment says counts.

    Raises:
        ManifestError: ONNX Runtime cannot load it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # shapes change from run to run
    options.log_severity_level = 3
    # Threads spin between the ops of a run, where waking them would cost more than the op, and sleep between runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    ask_for_exact_products(options)
    said = os.environ.get(_NO_TILES)
    if not tiles:
        os.environ[_NO_TILES] = "1"  # read when kernels are made
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many types, all of them meaning that the file is unusable
        raise ManifestError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {error}", "build the engine again"
        ) from error
    finally:
        if said is None:
            os.environ.pop(_NO_TILES, None)
        else:
            os.environ[_NO_TILES] = said
    return_free_memory()
    return session


def ask_for_exact_products(options: onnxruntime.SessionOptions) -> None:
    """Have sums of products of uint8 and int8 not saturate, on processors where they would; elsewhere that is only slower."""
    if not has_vnni():
        options.add_session_config_entry("session.x64quantprecision", "1")


def bind_input(binding: onnxruntime.IOBinding, name: str, array: NDArray[np.generic]) -> None:
    binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def bind_output(binding: onnxruntime.IOBinding, name: str, array: NDArray[np.generic]) -> None:
    binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
