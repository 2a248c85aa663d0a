"""The paged runner on a real GPU, against float32 torch: numbers, CUDA graphs, tokens fed on the device, memory, time.

Run on a machine with an NVIDIA GPU of compute capability 8.0 or later, onnxruntime-gpu, cuda-bindings and torch:
pytest -m gpu -s tests/gpu/test_cuda_runner.py. It needs no builder: see support/paged_graph.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the reference is computed with torch")

import torch

from triune_runtime.machine import this_machine
from triune_runtime.manifest import Limits
from triune_runtime.runner import CopyBlock, Order, Table, Want, Work

pytestmark = pytest.mark.gpu
BLOCK, BLOCKS, SLOTS = 128, 400, 64
LIMITS = Limits(max_sequences=SLOTS, max_length=1024, prefill_chunk=256, max_step_tokens=1024)
TOLERANCE = {"float16": 1e-3, "bfloat16": 1e-2}
ROOM = 1 << 20  # bytes of GPU memory that may come and go
CODE = 8 << 20  # bytes that code of kernels may take which warm-up did not meet: comes in pieces of 2 MiB


class Running:
    """A runner over an engine with random weights, and texts that its slots hold."""

    def __init__(self, shape: Any, dtype: str, folder: Path) -> None:
        from support import paged_graph
        from triune_runtime.targets.cuda.loading import cuda_runner

        torch.backends.cuda.matmul.allow_tf32 = False
        self.shape, self.dtype, self._graph = shape, dtype, paged_graph
        self.weights = paged_graph.make_weights(shape, dtype)
        manifest = paged_graph.make_engine(shape, self.weights, dtype, folder, LIMITS, BLOCK)
        began = time.perf_counter()
        self.runner = cuda_runner(manifest, folder, blocks=BLOCKS)
        loaded = time.perf_counter()
        self.runner.warm_up()
        size = (folder / "weights.bin").stat().st_size / 1e9
        print(f"\n{dtype} {size:.2f} GB: loaded in {loaded - began:.2f} s, warmed up in {time.perf_counter() - loaded:.2f} s")
        self.texts: dict[int, list[int]] = {}
        self.done: dict[int, int] = {}
        self._known: dict[int, Any] = {}
        self.rng = random.Random(7)

    def begin(self, slots: range, length: int = 900) -> list[Order]:
        """New texts in `slots`, and blocks for them."""
        each = -(-length // BLOCK)
        for slot in slots:
            self.texts[slot] = [self.rng.randrange(self.shape.vocab) for _ in range(length)]
            self.done[slot] = 0
            self._known.pop(slot, None)
        free = self.rng.sample(range(BLOCKS), each * len(slots))
        return [Table(slot, tuple(free[each * n : each * (n + 1)])) for n, slot in enumerate(slots)]

    def work(self, slot: int, count: int, drafts: int = 0) -> Work:
        start = self.done[slot]
        self.done[slot] += count
        return Work(slot, start, tuple(self.texts[slot][start : start + count]), drafts)

    def errors(self, work: list[Work], orders: list[Order] | None = None) -> float:
        """Run it: the greatest relative error of any item's logits."""
        found, row, worst = self.runner.launch(work, orders or ()).collect().logits, 0, 0.0
        for item in work:
            stop = item.start + len(item.tokens)
            wanted = self.expected(item.slot)[stop - item.rows : stop]
            made = torch.from_numpy(found[row : row + item.rows].copy()).cuda()
            worst = max(worst, float((made - wanted).norm() / wanted.norm()))
            row += item.rows
        return worst

    def expected(self, slot: int) -> Any:
        if slot not in self._known:
            self._known[slot] = self._graph.reference(self.shape, self.weights, self.texts[slot])
        return self._known[slot]


@pytest.fixture(scope="module", params=[("tiny", "float16"), ("tiny", "bfloat16"), ("two layers", "float16")], ids=str)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    machine = this_machine()
    if not machine.gpus:
        pytest.skip(f"no supported GPU: {machine.no_gpu}")
    from support.paged_graph import TINY, TWO_LAYERS

    size, dtype = request.param
    made = Running({"tiny": TINY, "two layers": TWO_LAYERS}[size], dtype, tmp_path_factory.mktemp("engine"))
    yield made
    made.runner.close()


def test_packed_prefill_mixed_and_ragged_steps_equal_float32_torch(running: Running) -> None:
    """Prompts of several lengths, decodes with a chunk and a new prompt, decodes alone, drafts, a scored chunk."""
    orders, work = running.begin(range(12), 500), running.work
    steps = [
        [work(0, 37), work(1, 130), work(2, 300)],
        [work(0, 1), work(1, 1), work(2, 20), work(3, 50)],
        *([work(slot, 1) for slot in range(4)] for _ in range(3)),
        [work(0, 4, 3), work(1, 2, 1), work(2, 1)],
        [work(slot, 128) for slot in range(4, 12)],
        [*(work(slot, 1) for slot in range(4, 12)), work(0, 100)],  # two parts
        [work(3, 27)._replace(scored=True)],
    ]
    found = [running.errors(step, orders if not n else None) for n, step in enumerate(steps)]
    print("relative errors", [f"{error:.1e}" for error in found])
    assert max(found) < TOLERANCE[running.dtype]


def test_200_replays_with_changing_batches_equal_float32_torch(running: Running) -> None:
    """Any slots, lengths from 1 to 800, every batch size that is padded, and blocks that are copied and changed meanwhile."""
    slots = range(24)
    orders = running.begin(slots, 800)
    spare = sorted(set(range(BLOCKS)) - {block for order in orders for block in order.blocks})  # type: ignore[union-attr]
    tables = {order.slot: list(order.blocks) for order in orders if isinstance(order, Table)}
    for first in range(0, 24, 3):
        running.errors([running.work(slot, running.rng.randint(1, 300)) for slot in range(first, first + 3)], orders)
        orders = []
    worst = 0.0
    for _ in range(200):
        chosen = running.rng.sample(list(slots), running.rng.randint(1, 24))
        orders = []
        if running.rng.random() < 0.3:
            slot, new = chosen[0], spare.pop(0)
            place = running.rng.randrange(len(tables[slot]))
            orders = [CopyBlock(tables[slot][place], new)]
            spare.append(tables[slot][place])
            tables[slot][place] = new
            orders.append(Table(slot, tuple(tables[slot])))
        worst = max(worst, running.errors([running.work(slot, 1) for slot in chosen], orders))
    print(f"greatest relative error of 200 replays {worst:.1e}")
    assert worst < TOLERANCE[running.dtype]


def test_tokens_that_are_fed_on_the_device_are_the_best_ones(running: Running) -> None:
    """40 steps, each launched before the last one's tokens are known."""
    count, runner = 9, running.runner
    orders = running.begin(range(count), 300)
    for slot in range(count):
        running.texts[slot] = running.texts[slot][: 20 + 11 * slot]
    prompts = [running.work(slot, len(running.texts[slot]))._replace(wants=Want.TOKEN) for slot in range(count)]
    flights = [runner.launch(prompts, orders)]
    for step in range(40):
        work = [Work(s, len(running.texts[s]) + step, (0,), 0, Want.TOKEN, True) for s in range(count)]
        flights.append(runner.launch(work))
        best = flights[-2].collect().best
        assert best is not None and np.isfinite(best.logits).all()
        flights[-2] = best.tokens
    for slot in range(count):
        prompt = len(running.texts[slot])
        running.texts[slot] += [int(tokens[slot]) for tokens in flights[:-1]]
        rows = running.expected(slot)[prompt - 1 : prompt + 39]
        made = rows.gather(1, torch.tensor(running.texts[slot][prompt:], device="cuda")[:, None])[:, 0]
        short = float((rows.max(1).values - made).max() / rows.abs().max())
        assert short < 4 * TOLERANCE[running.dtype], f"slot {slot}: a token that is {short:.1e} below the best"
    flights[-1].collect()


def mixed_steps(running: Running, count: int) -> Iterator[list[Work]]:
    """Decodes, chunks behind texts and new prompts of 32 slots, up to 600 tokens a step."""
    lengths = [0] * 32
    for step in range(count):
        work, budget = list[Work](), 600
        for slot in running.rng.sample(range(32), running.rng.randint(1, 32)):
            if lengths[slot] > 400:
                lengths[slot] = 0
            chunk = running.rng.random() < 0.1 or not lengths[slot]
            new = min(running.rng.randint(2, 90) if chunk else 1, budget)
            if new:
                budget -= new
                work.append(Work(slot, lengths[slot], (step % 1000,) * new, 0, Want.TOKEN))
                lengths[slot] += new
        yield work


def test_memory_stays_over_1000_steps(running: Running, capfd: pytest.CaptureFixture[str]) -> None:
    """ONNX Runtime's arena never grows after warm-up; drivers load the code of a kernel when it is first used (see docs).

    That ends: the same steps again take nothing. Says of every step that took or gave memory what ran in it, and whether the
    arena grew: where not, it was code, or memory that cuBLAS or cuDNN took for themselves.
    """
    import onnxruntime  # by now the one for CUDA

    runner = running.runner
    orders: Any = running.begin(range(32), 512)
    steps, said, arena = list(mixed_steps(running, 1000)), list[str](), list[str]()
    free = [runner.memory()[0]]
    onnxruntime.set_default_logger_severity(1)  # the arena says when it grows, and by how much
    try:
        for turn in range(2):
            before = free[-1]
            for step, work in enumerate(steps):
                runner.launch(work, orders).collect()
                orders = ()
                grown = [line for line in capfd.readouterr().err.splitlines() if "Extending BFCArena for Cuda." in line]
                arena += grown
                now = runner.memory()[0]
                if now != before or grown:
                    chunks = [(len(item.tokens), item.start) for item in work if len(item.tokens) > 1]
                    decodes = [item.start for item in work if len(item.tokens) == 1]
                    said.append(
                        f"turn {turn}, step {step}: {before - now:,} bytes, arena {grown or 'as it was'}; {len(chunks)} chunks "
                        f"of {sum(length for length, _ in chunks)} tokens (tokens, start) {chunks}; {len(decodes)} decodes "
                        f"behind up to {max(decodes, default=0)}"
                    )
                before = now
            free.append(before)
    finally:
        onnxruntime.set_default_logger_severity(2)
    told = "\n".join([f"CUDA_MODULE_LOADING={os.environ.get('CUDA_MODULE_LOADING', '(lazy)')}; free {free}", *said])
    with capfd.disabled():
        print(f"\n{told}")
    assert not arena, told
    assert free[1] - free[2] < ROOM, told
    assert free[0] - free[1] <= CODE, told


def test_time_of_decodes_is_printed(running: Running) -> None:
    """Fed, one launch ahead: nothing is asserted but that all come back."""
    for count in (1, 8, 64):
        orders = running.begin(range(count), 700)[:count]
        starts = 256
        running.runner.launch([Work(s, 0, tuple(running.texts[s][:16]), 0, Want.TOKEN) for s in range(count)], orders).collect()
        flying, began = None, 0.0
        for step in range(120):
            if step == 20:
                began = time.perf_counter()
            flight = running.runner.launch([Work(s, starts + step, (0,), 0, Want.TOKEN, True) for s in range(count)])
            if flying is not None:
                flying.collect()
            flying = flight
        assert flying is not None and flying.collect().best is not None
        print(f"decode of {count}: {(time.perf_counter() - began) * 10:.3f} ms a step")
