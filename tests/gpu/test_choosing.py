"""Tokens chosen on a real GPU: the host's, row by row, and in what time. Run: pytest -s -m gpu tests/gpu/test_choosing.py

Needs an NVIDIA GPU, cuda-bindings and NVRTC. It prints what it measures; takes about a minute.
"""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from support.choosing_cases import cases, peaks
from support.choosing_diagnosis import diagnosis
from support.nvrtc import needs_nvrtc
from triune_runtime.errors import TriuneError
from triune_runtime.runner import Best
from triune_runtime.sampling.columns import Columns
from triune_runtime.sampling.host import choose
from triune_runtime.targets.cuda.choosing import Chooser, compile_kernel
from triune_runtime.targets.device.cuda import CudaDevice

pytestmark = [pytest.mark.gpu, needs_nvrtc]
VOCABULARY, ROWS = 151_936, 256
STEPS, BANKS = 80, 4  # 20,480 rows; every bank of logits serves several steps, each asking for something else
SHOWN = 6  # rows that differ, of which everything is printed
REPEATS = 20  # choices in one recording, and then recordings
CHANGES: dict[str, dict[str, float]] = {
    "greedy": {"greedy": 1, "temperature": 0},
    "temperature 1": {},
    "temperature 0.6, top-p 0.95": {"temperature": 0.6, "top_p": 0.95},
    "temperature 1, top-k 50": {"top_k": 50},
    "temperature 1, min-p 0.05": {"min_p": 0.05},
    "temperature 1, top-k 50, top-p 0.9, min-p 0.01": {"top_k": 50, "top_p": 0.9, "min_p": 0.01},
    "temperature 1, top-k 100,000": {"top_k": 100_000},
}


class Gpu:
    """A chooser for 256 rows and logits on the GPU."""

    def __init__(self) -> None:
        self.device = CudaDevice()
        began = time.perf_counter()
        kernel = compile_kernel()
        print(f"\nthe kernel compiled and loaded in {time.perf_counter() - began:.2f} s")
        self.chooser = Chooser(self.device, kernel, vocab_size=VOCABULARY, rows=ROWS)
        self.logits = self.device.allocate(4 * ROWS * VOCABULARY)
        self.pinned = self.device.host((ROWS, VOCABULARY), np.float32)
        self._tokens = self.device.host((ROWS,), np.int64)
        self._values = self.device.host((ROWS,), np.float32)

    def give(self, logits: NDArray[np.float32]) -> None:
        self.pinned[...] = logits
        self.device.upload(self.logits, self.pinned)
        self.device.synchronize()

    def choose(self, columns: Columns | None, rows: int = ROWS) -> Best:
        self.chooser.prepare(columns, rows)
        self.chooser.enqueue(self.logits, rows)
        self.device.download(self._tokens, self.chooser.tokens)
        self.device.download(self._values, self.chooser.logits)
        self.device.synchronize()
        return Best(self._tokens[:rows].copy(), self._values[:rows].copy())

    def milliseconds(self, columns: Columns | None, rows: int) -> float:
        """Of one choice: the least of several recordings."""
        self.chooser.prepare(columns, rows)

        def queue() -> None:
            for _ in range(REPEATS):
                self.chooser.enqueue(self.logits, rows)

        replay = self.device.capture(queue)
        assert replay is not None, "the choice cannot be recorded"
        times = []
        for _ in range(REPEATS):
            self.device.synchronize()
            began = time.perf_counter()
            replay()
            self.device.synchronize()
            times.append(time.perf_counter() - began)
        return min(times[1:]) * 1e3 / REPEATS


@pytest.fixture(scope="module")
def gpu() -> Gpu:
    try:
        made = Gpu()
    except TriuneError as error:
        pytest.skip(f"no GPU that can be used: {error}")
    return made


def of_rows(columns: Columns, **values: float) -> Columns:
    """Columns of as many rows, each of which is drawn at temperature 1 but for `values`."""
    rows, nobody = len(columns), columns.take(np.array([], np.int64))
    numbers = {
        "temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0, "repetition": 1, "presence": 0, "frequency": 0,
        "greedy": 0, "adjusted": 0, "forced": -1, **values,
    }  # fmt: skip
    return dataclasses.replace(
        columns, biases=nobody.biases, seen=nobody.seen, bans=nobody.bans, masked=nobody.masked, masks=nobody.masks,
        **{name: np.full(rows, value, getattr(columns, name).dtype) for name, value in numbers.items()},
    )  # fmt: skip


def different(best: Best, logits: NDArray[np.float32], columns: Columns, row: int) -> bool:
    one, at = columns.take(np.array([row])), slice(row, row + 1)
    own = choose(logits[at], one)
    theirs = choose(logits[at], one, best=Best(best.tokens[at], best.logits[at]), theirs=np.ones(1, np.bool_))
    return bool(own.usable[0] != theirs.usable[0] or (own.usable[0] and own.tokens[0] != best.tokens[row]))


def test_20_000_rows_get_the_hosts_tokens(gpu: Gpu, capsys: pytest.CaptureFixture[str]) -> None:
    began, wrong, given = time.perf_counter(), list[str](), np.empty(0)
    banks = [logits for logits, _ in cases(1, VOCABULARY, ROWS, BANKS)]
    asked = [columns for _, columns in cases(2, VOCABULARY, ROWS, STEPS, logits=False)]
    with ThreadPoolExecutor(8) as pool:
        for step, columns in enumerate(asked):
            logits = banks[step * BANKS // STEPS]
            if logits is not given:
                gpu.give(logits)
                given = logits
            best = gpu.choose(columns)
            found = pool.map(
                lambda row, best=best, logits=logits, columns=columns: different(best, logits, columns, row), range(ROWS)
            )
            rows = [row for row, is_wrong in enumerate(found) if is_wrong]
            again = gpu.choose(columns) if rows else best
            for row in rows[: max(0, SHOWN - len(wrong))]:
                one, token, logit = columns.take(np.array([row])), int(best.tokens[row]), float(best.logits[row])
                with capsys.disabled():
                    print(f"\nstep {step} row {row}; by the GPU once more: {again.tokens[row]} {again.logits[row]}")
                    print(diagnosis(logits[row : row + 1], one, token, logit))
            wrong += [f"step {step} row {row}" for row in rows]
    gpu.device.download(gpu.pinned, gpu.logits)
    gpu.device.synchronize()
    with capsys.disabled():
        print(f"\n{STEPS * ROWS:,} rows of {VOCABULARY:,}: {len(wrong)} differ; {time.perf_counter() - began:.0f} s")
    assert not wrong
    assert gpu.pinned.tobytes() == banks[-1].tobytes(), "the logits are not what they were"


def test_rows_of_a_recorded_choice_follow_what_is_prepared(gpu: Gpu) -> None:
    logits, _ = next(cases(3, VOCABULARY, ROWS, 1))
    gpu.give(logits)
    replay = gpu.device.capture(lambda: gpu.chooser.enqueue(gpu.logits, ROWS))
    assert replay is not None
    tokens = gpu.device.host((ROWS,), np.int64)
    for _, columns in cases(4, VOCABULARY, ROWS, 3, logits=False):
        best = gpu.choose(columns)
        gpu.chooser.prepare(columns, ROWS)
        replay()
        gpu.device.download(tokens, gpu.chooser.tokens)
        gpu.device.synchronize()
        assert tokens.tolist() == best.tokens.tolist()


def test_times(gpu: Gpu, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the milliseconds of each case; asserts that the tokens are the host's."""
    random = np.random.default_rng(5)
    kinds = {
        "a bulk and 64 peaks": np.stack([peaks(random, VOCABULARY) for _ in range(ROWS)]),
        "normal, deviation 2": random.standard_normal((ROWS, VOCABULARY), np.float32) * 2,
    }
    _, drawn = next(cases(6, VOCABULARY, ROWS, 1, logits=False))
    with capsys.disabled():
        for kind, logits in kinds.items():
            gpu.give(logits)
            print(f"\n{kind}; ms at 1, 64 and 256 rows")
            for name, change in CHANGES.items():
                columns = of_rows(drawn, **change)
                times = [gpu.milliseconds(columns.take(np.arange(rows)), rows) for rows in (1, 64, 256)]
                print(f"  {name:48s}", *(f"{ms:8.4f}" for ms in times))
                best = gpu.choose(columns)
                assert not any(different(best, logits, columns, row) for row in range(0, ROWS, 32))
        began = time.perf_counter()
        for _ in range(REPEATS):
            gpu.chooser.prepare(drawn, ROWS)
            gpu.device.synchronize()
        print(f"preparing all of everything for 256 rows: {(time.perf_counter() - began) * 1e3 / REPEATS:.3f} ms")
