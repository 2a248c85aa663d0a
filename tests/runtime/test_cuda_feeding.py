"""The kernels that feed steps, run on the host, do what the runner's tests take for granted.

Run: pytest tests/runtime/test_cuda_feeding.py
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("cuda.bindings", reason="needs cuda-bindings: requirements/tensorrt.txt")

from fakes.cuda_engines import HostFeeder
from support.cuda_emulation import EmulatedKernel, needs_compiler
from support.feeding_kernels import CALLS, NO_SHARED
from support.nvrtc import needs_nvrtc
from triune_runtime.targets.cuda.feeding import SOURCE, KernelFeeder
from triune_runtime.targets.cuda.nvrtc import compile_cubin
from triune_runtime.targets.cuda.pool import independent
from triune_runtime.targets.cuda.protocols import CacheGroup, Feed, Feeder, StepBuffers, StepShape
from triune_runtime.targets.device.host import HostDevice


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, EmulatedKernel]:
    source = NO_SHARED + SOURCE.read_text("utf-8")
    return {name: EmulatedKernel(source, call, tmp_path_factory.mktemp(name)) for name, call in CALLS.items()}


class Both:
    """The same numbers twice: on a host device, for what the tests use, and in plain memory, for the kernels."""

    def __init__(self, kernels: dict[str, EmulatedKernel]) -> None:
        self.device, self.arrays, self.addresses = HostDevice(), dict[str, np.ndarray](), dict[str, int]()
        self.feeders: tuple[Feeder, Feeder] = HostFeeder(self.device), KernelFeeder(7, kernels)

    def add(self, **arrays: np.ndarray) -> None:
        for name, array in arrays.items():
            self.arrays[name] = array.copy()
            self.addresses[name] = self.device.allocate(array.nbytes)
            self.device.view(self.addresses[name], array.shape, array.dtype)[...] = array

    def at(self, number: int, name: str) -> int:
        return self.arrays[name].ctypes.data if number else self.addresses[name]

    def same(self) -> bool:
        self.device.synchronize()
        found = {name: self.device.view(self.addresses[name], a.shape, a.dtype) for name, a in self.arrays.items()}
        return all(np.array_equal(found[name], array) for name, array in self.arrays.items())


@needs_compiler
@pytest.mark.parametrize("count", [1, 5, 130, 300])
def test_tables_are_patched_at_their_cells_alone(kernels: dict[str, EmulatedKernel], count: int) -> None:
    rng = np.random.default_rng(count)
    both = Both(kernels)
    both.add(
        tables=np.zeros(1000, np.int32),
        cells=rng.permutation(1000).astype(np.int32),
        values=rng.integers(1, 9999, 1000).astype(np.int32),
    )
    for number, feeder in enumerate(both.feeders):
        feeder.patch(*(both.at(number, name) for name in ("tables", "cells", "values")), count)
    assert both.same() and np.count_nonzero(both.arrays["tables"]) == count


@needs_compiler
@pytest.mark.parametrize(("sequences", "width"), [(1, 1), (3, 7), (5, 40), (200, 64)])
def test_a_step_gets_the_rows_of_its_slots_and_the_tokens_that_are_fed(
    kernels: dict[str, EmulatedKernel], sequences: int, width: int
) -> None:
    rng = np.random.default_rng(sequences)
    ends = np.concatenate([[0], np.cumsum(rng.integers(1, 4, sequences))]).astype(np.int32)
    both = Both(kernels)
    both.add(
        tables=rng.integers(0, 999, (210, 64)).astype(np.int32),
        latest=rng.integers(1000, 2000, 210),
        slots=rng.permutation(210)[:sequences].astype(np.int32),
        fed=rng.integers(0, 2, sequences).astype(np.int32),
        ends=ends,
        ids=np.zeros(ends[-1], np.int64),
        table=np.full((sequences, width), -1, np.int32),
    )
    shape = StepShape(tokens=int(ends[-1]), sequences=sequences, rows=1, width=width)
    for number, feeder in enumerate(both.feeders):
        tables, latest, slots, fed, cu, ids, table = (both.at(number, name) for name in both.arrays)
        buffers = StepBuffers(ids, cu, 0, table, 0, 0)
        feeder.assemble(Feed(tables, 64, latest, slots, fed), buffers, shape)
    assert both.same()
    assert np.array_equal(both.arrays["table"], both.arrays["tables"][both.arrays["slots"], :width])
    assert np.count_nonzero(both.arrays["ids"]) == both.arrays["fed"].sum()


@needs_compiler
@pytest.mark.parametrize("count", [1, 4, 129])
def test_chosen_tokens_are_kept_for_slots_that_have_a_row(kernels: dict[str, EmulatedKernel], count: int) -> None:
    rng = np.random.default_rng(count)
    both = Both(kernels)
    both.add(
        latest=np.zeros(150, np.int64),
        slots=rng.permutation(150)[:count].astype(np.int32),
        rows=rng.integers(-1, 20, count).astype(np.int32),
        tokens=rng.integers(1, 2**40, 20),
    )
    for number, feeder in enumerate(both.feeders):
        feeder.remember(*(both.at(number, name) for name in both.arrays), count)
    assert both.same() and np.count_nonzero(both.arrays["latest"]) == (both.arrays["rows"] >= 0).sum()


@needs_compiler
@pytest.mark.parametrize("pairs", [[(4, 1)], [(4, 1), (4, 0), (5, 3)], [(n % 7, 7 + n) for n in range(200)]])
@pytest.mark.parametrize(("size", "count"), [(16, 1), (48, 3), (40_000, 5), (16 << 10, 2), (7, 4), (1001, 3)])
def test_blocks_of_every_tensor_are_copied_and_nothing_else(
    kernels: dict[str, EmulatedKernel], size: int, count: int, pairs: list[tuple[int, int]]
) -> None:
    rng, blocks = np.random.default_rng(size), 2 + max(map(max, pairs))
    pitch = size * blocks + -size * blocks % 256
    before = rng.integers(0, 256, pitch * count).astype(np.uint8)
    both = Both(kernels)
    both.add(memory=before)
    for number, feeder in enumerate(both.feeders):
        feeder.copy_blocks(CacheGroup(both.at(number, "memory"), pitch, count, size), pairs)
    after = before.copy()
    for tensor in after.reshape(count, pitch):
        for source, target in pairs:
            tensor[target * size : (target + 1) * size] = tensor[source * size : (source + 1) * size]
    assert both.same() and np.array_equal(both.arrays["memory"], after)


@given(pairs=st.lists(st.lists(st.integers(0, 5), min_size=2, max_size=2, unique=True), max_size=12))
def test_copies_at_once_give_what_they_give_one_after_the_other(pairs: list[list[int]]) -> None:
    """What one copies to, another may copy from, or to again."""
    expected, found = list("abcdef"), list("abcdef")
    for source, target in pairs:
        expected[target] = expected[source]
    parts = list(independent([(source, target) for source, target in pairs]))
    for part in parts:
        before = list(found)
        for source, target in reversed(part):
            found[target] = before[source]
    assert found == expected and [[*pair] for part in parts for pair in part] == pairs
    assert len(list(independent([(0, n) for n in range(1, 64)]))) == 1, "many that begin alike are one launch"


@needs_nvrtc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a", "sm_120a"])
def test_the_kernels_compile_for_every_gpu_that_is_served(architecture: str) -> None:
    assert compile_cubin(SOURCE.read_text("utf-8"), SOURCE.name, architecture)[:4] == b"\x7fELF"
