"""The whole way of a step but for the model, over a stand-in for a GPU: the runner, the CUDA device, its kernels, the chooser.

Run: pytest tests/runtime/test_cuda_stack.py
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cuda.bindings", reason="needs cuda-bindings: requirements/tensorrt.txt")

from fakes.cuda_engines import HostProgram
from fakes.cuda_runtime import FakeCuda
from fakes.paged_launches import MANIFEST, VOCAB, ByHand, check
from support.cuda_emulation import EmulatedKernel, needs_compiler
from support.feeding_kernels import CALLS, NO_SHARED
from triune_runtime.targets.cuda.choosing import Chooser, source
from triune_runtime.targets.cuda.feeding import SOURCE, KernelFeeder
from triune_runtime.targets.cuda.runner import PagedRunner, step_sizes
from triune_runtime.targets.device import cuda
from triune_runtime.targets.device.cuda import CudaDevice

CHOOSE = (
    "choose(*(float**)a[0], *(int*)a[1], *(int*)a[2], *(const Head**)a[3], *(const Row**)a[4], *(const u32**)a[5], "
    "*(long long**)a[6], *(float**)a[7])"
)


class Gpu(CudaDevice):
    """A CUDA device whose memory the fake program can see."""

    def __init__(self, fake: FakeCuda) -> None:
        super().__init__()
        self._fake = fake

    def view(self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        size = math.prod(shape) * dtype.itemsize
        assert self._fake.inside(address, size), f"{size} bytes at {address}: outside every allocation"
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)).view(dtype).reshape(shape)

    def queue(self, do: Callable[[], None]) -> None:
        self._fake.queue(do, self.stream)

    @property
    def queued(self) -> int:
        return len(self._fake.queued)


@needs_compiler
@pytest.mark.parametrize("lag", [0, 1])
def test_any_launches_equal_a_model_by_hand(tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch, lag: int) -> None:
    fake = FakeCuda()
    monkeypatch.setattr(cuda, "cudart", fake)
    device, text = Gpu(fake), NO_SHARED + SOURCE.read_text("utf-8")
    kernels = {name: EmulatedKernel(text, call, tmp_path_factory.mktemp(name)) for name, call in CALLS.items()}
    choose = EmulatedKernel(source(), CHOOSE, tmp_path_factory.mktemp("choose"))
    choose.threads = 64
    for kernel in (*kernels.values(), choose):
        kernel.queue = device.queue
    chooser = Chooser(device, choose, vocab_size=VOCAB, rows=step_sizes(MANIFEST.limits).rows)
    program = HostProgram(device, MANIFEST)  # type: ignore[arg-type]  # of a host device it asks no more
    runner = PagedRunner(MANIFEST, device, program, KernelFeeder(device.stream, kernels), chooser, blocks=80)
    runner.warm_up()
    calls = fake.calls.count("cudaMalloc"), fake.calls.count("cudaHostAlloc")
    hand, flying = ByHand(11, runner), list[Any]()
    for _ in range(60):
        flying.append(hand.launch())
        while len(flying) > lag:
            check(*flying.pop(0), chooses=True)
    for flight in flying:
        check(*flight, chooses=True)
    assert (fake.calls.count("cudaMalloc"), fake.calls.count("cudaHostAlloc")) == calls
    runner.close()
