"""Events, memory and the end of a CUDA device, over a stand-in; weights on their way to a device; values over their memory.

Run: pytest tests/runtime/test_cuda_device.py
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("cuda.bindings", reason="needs cuda-bindings: requirements/tensorrt.txt")

from cuda.bindings import runtime as real_cuda

from fakes.cuda_runtime import FakeCuda
from triune_runtime.errors import DeviceLost, ManifestError, TriuneError
from triune_runtime.targets.cuda.device_values import value_at
from triune_runtime.targets.device import cuda
from triune_runtime.targets.device import weights as weights_module
from triune_runtime.targets.device.cuda import CudaDevice
from triune_runtime.targets.device.host import HostDevice
from triune_runtime.targets.device.stored import StoredWeight
from triune_runtime.targets.device.weights import load_weights_to

LOST = real_cuda.cudaError_t.cudaErrorIllegalAddress


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setattr(cuda, "cudart", fake)
    return fake


def test_an_event_waits_for_what_was_queued_before_it_and_no_more(fake: FakeCuda) -> None:
    device = CudaDevice()
    block, first, second = device.host((64,), np.uint8), device.event(), device.event()
    address = device.allocate(64)
    second.wait()  # never recorded
    device.upload(address, block)
    first.record()
    device.upload(address, block)
    second.record()
    first.wait()
    assert len(fake.queued) == 2
    second.wait()
    assert not fake.queued


@pytest.mark.parametrize("call", ["cudaEventSynchronize", "cudaStreamQuery"])
def test_a_device_that_does_not_answer_is_lost(fake: FakeCuda, call: str) -> None:
    device = CudaDevice()
    ask = device.event().wait if call == "cudaEventSynchronize" else device.check
    ask()
    fake.fail[call] = LOST
    with pytest.raises(DeviceLost, match="illegal memory access"):
        ask()


def test_a_device_frees_graphs_before_memory_and_memory_when_nothing_is_in_flight(fake: FakeCuda) -> None:
    device = CudaDevice()
    block, address = device.host((64,), np.uint8), device.allocate(64)
    replay = device.capture(lambda: device.upload(address, block))
    assert replay is not None
    replay()
    device.close()
    assert not fake.graphs and not fake.inside(address, 1)
    assert device.memory() == (fake.free, 80 << 30)


@pytest.fixture
def stored(tmp_path: Path) -> tuple[list[StoredWeight], dict[str, bytes]]:
    """Weights of two files, of all sizes around that of a block; two of them are one."""
    rng, weights, contents = np.random.default_rng(5), list[StoredWeight](), dict[str, bytes]()
    for file in ("a.bin", "b.bin"):
        data = bytearray(7)
        for n, length in enumerate((1, 299, 300, 301, 2000, 17)):
            contents[f"{file}.{n}"] = rng.bytes(length)
            place = (file, len(data), length)
            weights.append(
                StoredWeight(name=f"{file}.{n}", dtype="uint8", shape=(length,), file=file, offset=place[1], length=length)
            )
            data += contents[f"{file}.{n}"] + b"gap"
        (tmp_path / file).write_bytes(data)
    weights.append(dataclasses.replace(weights[3], name="tied"))
    contents["tied"] = contents["a.bin.3"]
    return weights, contents


def test_weights_lie_on_the_device_as_in_their_files_each_once(
    stored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_module, "_BLOCK", 300)
    weights, contents = stored
    device = HostDevice()
    addresses = load_weights_to(device, weights, tmp_path)
    for weight, address in zip(weights, addresses, strict=True):
        assert address % 256 == 0
        assert device.view(address, weight.shape, np.dtype(np.uint8)).tobytes() == contents[weight.name], weight
    assert addresses[-1] == addresses[3] and len(set(addresses)) == len(weights) - 1


def test_weights_that_are_missing_cut_short_or_too_big_are_refused(stored: Any, tmp_path: Path) -> None:
    weights, _ = stored
    with pytest.raises(TriuneError, match=r"the weights take 0\.0 GB of GPU memory, but 0\.0 of 0\.0 GB are free"):
        load_weights_to(HostDevice(1000), weights, tmp_path)
    (tmp_path / "b.bin").write_bytes(b"short")
    with pytest.raises(ManifestError, match=r"b\.bin is damaged: it has 5 bytes, its weights end at 2,9"):
        load_weights_to(HostDevice(), weights, tmp_path)
    (tmp_path / "b.bin").unlink()
    with pytest.raises(ManifestError, match=r"b\.bin cannot be read: No such file"):
        load_weights_to(HostDevice(), weights, tmp_path)


@pytest.mark.parametrize(
    ("dtype", "bits", "shape"),
    [("float16", 16, (3, 4)), ("bfloat16", 16, (12,)), ("float", 32, (2, 3, 2)), ("float32", 32, (6,)), ("uint8", 8, (5, 1)),
     ("int8", 8, (7,)), ("int32", 32, ()), ("int64", 64, (1,)), ("float8e4m3fn", 8, (4, 4))],
)  # fmt: skip
def test_a_value_is_the_memory_that_it_is_made_over(dtype: str, bits: int, shape: tuple[int, ...]) -> None:
    """And outlives what it was described with."""
    memory = np.zeros(max(1, int(np.prod(shape))) * bits // 8, np.uint8)
    value = value_at(memory.ctypes.data, shape, dtype, cuda=False)
    assert value.data_ptr() == memory.ctypes.data and tuple(value.shape()) == shape
    assert value.data_type() == f"tensor({'float' if dtype == 'float32' else dtype})"
    assert value.tensor_size_in_bytes() == memory.nbytes
    options = onnxruntime.SessionOptions()
    options.add_initializer("w", value)
    del value, options
