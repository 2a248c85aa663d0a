"""The GPU's choice of tokens, its kernel run on the host, against the host's sampler.

Run: pytest tests/runtime/test_cuda_choosing.py; tests/gpu/test_choosing.py does the same on a GPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("cuda.bindings", reason="needs cuda-bindings: requirements/tensorrt.txt")

from fakes.cuda_runtime import FakeCuda
from support.choosing_cases import cases
from support.cuda_emulation import EmulatedKernel, needs_compiler
from support.nvrtc import needs_nvrtc
from triune_runtime.request import SamplingParams
from triune_runtime.runner import Best
from triune_runtime.sampling.chance import uniform_numbers
from triune_runtime.sampling.columns import Columns, Sites
from triune_runtime.sampling.host import choose
from triune_runtime.sampling.rows import SampleRow
from triune_runtime.targets.cuda import choosing
from triune_runtime.targets.cuda.choosing import Chooser, source
from triune_runtime.targets.cuda.nvrtc import EXACT, compile_cubin
from triune_runtime.targets.device import cuda
from triune_runtime.targets.device.cuda import CudaDevice

CALL = (
    "choose(*(float**)a[0], *(int*)a[1], *(int*)a[2], *(const Head**)a[3], *(const Row**)a[4], *(const u32**)a[5], "
    "*(long long**)a[6], *(float**)a[7])"
)
ROWS_OF_A_STEP = 24


@pytest.fixture(scope="module", params=["LISTED = 2048", "LISTED = 32"])
def kernel(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> EmulatedKernel:
    """As it is, and with a list so short that bins are divided again and again."""
    assert "LISTED = 2048" in source()
    return EmulatedKernel(source().replace("LISTED = 2048", request.param), CALL, tmp_path_factory.mktemp("kernel"))


class Gpu:
    """A chooser on a stand-in for the GPU, and what goes there and back."""

    def __init__(self, fake: FakeCuda, kernel: EmulatedKernel, size: int, threads: int = 64, seed: int = 1) -> None:
        kernel.queue, kernel.threads, kernel.seed = lambda do: fake.queue(do, self.device.stream), threads, seed
        self.device = CudaDevice()
        self.chooser = Chooser(self.device, kernel, vocab_size=size, rows=ROWS_OF_A_STEP)
        self.logits = self.device.host((ROWS_OF_A_STEP, size), np.float32)
        self._tokens = self.device.host((ROWS_OF_A_STEP,), np.int64)
        self._values = self.device.host((ROWS_OF_A_STEP,), np.float32)

    def choose(self, logits: NDArray[np.float32], columns: Columns | None) -> Best:
        rows = len(logits)
        self.logits[:rows] = logits
        self.chooser.prepare(columns, rows)
        self.chooser.enqueue(self.logits.ctypes.data, rows)
        self.device.download(self._tokens, self.chooser.tokens)
        self.device.download(self._values, self.chooser.logits)
        self.device.synchronize()
        assert self.logits[:rows].tobytes() == logits.tobytes(), "the logits are not what they were"
        return Best(self._tokens[:rows].copy(), self._values[:rows].copy())


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    fake = FakeCuda()
    monkeypatch.setattr(cuda, "cudart", fake)
    return fake


def differences(best: Best, logits: NDArray[np.float32], columns: Columns) -> list[int]:
    """The rows in which the host chooses otherwise: another token, or none where there is one."""
    own = choose(logits, columns)
    taken = choose(logits, columns, best=best, theirs=np.ones(len(logits), np.bool_))
    assert (own.tokens[own.usable] < logits.shape[1]).all()
    same = (own.usable == taken.usable) & (~own.usable | ((own.tokens == taken.tokens) & (own.tokens == best.tokens)))
    for row in np.flatnonzero(own.usable & same & (columns.forced < 0)):
        assert best.logits[row] == logits[row, best.tokens[row]], "the logit is not the token's"
    return np.flatnonzero(~same).tolist()


@needs_compiler
@pytest.mark.parametrize(("size", "count"), [(33, 60), (1000, 60), (1001, 20), (1002, 20), (6003, 40)])
def test_every_row_gets_the_hosts_token(fake: FakeCuda, kernel: EmulatedKernel, size: int, count: int) -> None:
    gpu = Gpu(fake, kernel, size)
    for number, (logits, columns) in enumerate(cases(size, size, ROWS_OF_A_STEP, count)):
        kernel.seed = number
        assert not differences(gpu.choose(logits, columns), logits, columns), f"step {number}"


@needs_compiler
@pytest.mark.parametrize("threads", [32, 96, 512, 1024])
def test_the_number_of_threads_changes_nothing(fake: FakeCuda, kernel: EmulatedKernel, threads: int) -> None:
    gpu = Gpu(fake, kernel, 5000, threads)
    for logits, columns in cases(threads, 5000, ROWS_OF_A_STEP, 2):
        assert not differences(gpu.choose(logits, columns), logits, columns)


@needs_compiler
def test_a_share_at_the_very_border_of_two_tokens_cuts_as_on_the_host(fake: FakeCuda, kernel: EmulatedKernel) -> None:
    """Four equal tokens: 1/4 keeps one, whatever is more than that keeps two."""
    gpu, rows = Gpu(fake, kernel, 4), ROWS_OF_A_STEP
    logits = np.full((rows, 4), 2, np.float32)
    _, columns = next(cases(0, 40, rows, 1))
    columns = drawing(columns, top_p=np.where(np.arange(rows) % 2, 0.25, 0.25 + 2.0**-45))
    best = gpu.choose(logits, columns)
    assert not differences(best, logits, columns)
    assert set(best.tokens[1::2]) == {0} and set(best.tokens[::2]) == {0, 1}


@needs_compiler
def test_tokens_far_below_the_best_have_their_chance(fake: FakeCuda, kernel: EmulatedKernel) -> None:
    """6000 tokens of 3e-10 of the best one's weight each: one is drawn by a number that is nearly 1."""
    gpu = Gpu(fake, kernel, 6000)
    logits = np.full((1, 6000), -22, np.float32)
    logits[0, 1234] = 0
    positions = np.arange(4_000_000)
    position = int(uniform_numbers(np.zeros(len(positions), np.uint64), positions).argmax())
    _, columns = next(cases(0, 40, 1, 1))
    columns = drawing(columns, seed=np.zeros(1, np.uint64), position=np.array([position]))
    best = gpu.choose(logits, columns)
    assert not differences(best, logits, columns)
    assert best.tokens[0] != 1234


@needs_compiler
def test_biases_come_before_penalties_and_these_before_bans(fake: FakeCuda, kernel: EmulatedKernel) -> None:
    """Where the same tokens have all three, and other threads each of them."""
    gpu, rows, size = Gpu(fake, kernel, 200), ROWS_OF_A_STEP, 200
    random = np.random.default_rng(0)

    def everywhere(tokens: int, low: float, high: float) -> Sites:
        at = np.concatenate([random.permutation(size)[:tokens] for _ in range(rows)])
        return Sites(np.repeat(np.arange(rows), tokens), at, random.uniform(low, high, len(at)).astype(np.float32))

    for seed in range(20):
        kernel.seed = seed
        logits, columns = next(cases(seed, size, rows, 1))
        logits = random.standard_normal((rows, size), np.float32)
        columns = drawing(
            columns, adjusted=np.full(rows, True), repetition=np.full(rows, 1.5, np.float32),
            biases=everywhere(150, -3, 3), seen=everywhere(200, 0, 2), bans=everywhere(180, 0, 0),
        )  # fmt: skip
        assert not differences(gpu.choose(logits, columns), logits, columns)


@needs_compiler
@pytest.mark.parametrize("kind", ["seen", "biases"])
def test_a_masked_token_may_grow_beyond_all_numbers(fake: FakeCuda, kernel: EmulatedKernel, kind: str) -> None:
    """3e38 becomes infinity: of no account where a mask or a ban comes after it, and no token is chosen where none does."""
    gpu, rows, size = Gpu(fake, kernel, 300), ROWS_OF_A_STEP, 300
    logits = np.random.default_rng(1).standard_normal((rows, size), np.float32)
    logits[:, 5] = 3e38
    _, columns = next(cases(0, size, rows, 1))
    own, everybody = np.arange(rows), np.full(rows, True)
    masks = np.full((rows, (size + 31) // 32), 0xFFFFFFFF, np.uint32)
    masks[0::3, 0] &= ~np.uint32(1 << 5)
    banned = own[1::3]
    one = Sites(own, np.full(rows, 5), np.full(rows, 3e38 if kind == "biases" else 1, np.float32))
    changes: dict[str, Any] = {
        kind: one, "bans": Sites(banned, np.full(len(banned), 5), np.zeros(len(banned), np.float32)),
        "masked": own, "masks": masks, "adjusted": everybody, "greedy": own % 2 == 0,
        "repetition": np.full(rows, 0.01 if kind == "seen" else 1, np.float32),
    }  # fmt: skip
    columns = drawing(columns, **changes)
    best = gpu.choose(logits, columns)
    assert not differences(best, logits, columns)
    assert np.isfinite(best.logits).tolist() == [row % 3 != 2 for row in range(rows)]


@needs_compiler
def test_a_step_without_columns_takes_the_best_tokens(fake: FakeCuda, kernel: EmulatedKernel) -> None:
    gpu, (logits, columns) = Gpu(fake, kernel, 500), next(cases(1, 500, ROWS_OF_A_STEP, 1))
    gpu.choose(logits, columns)
    best, usable = gpu.choose(logits, None), np.isfinite(logits.max(axis=1))
    assert best.tokens[usable].tolist() == logits[usable].argmax(axis=1).tolist()
    assert np.isfinite(best.logits).tolist() == usable.tolist()


@needs_compiler
def test_rows_without_columns_take_the_best_tokens(fake: FakeCuda, kernel: EmulatedKernel) -> None:
    """A recorded step of more rows than there are sequences."""
    gpu, (logits, columns) = Gpu(fake, kernel, 500), next(cases(2, 500, ROWS_OF_A_STEP, 1))
    gpu.choose(logits, columns)
    few = columns.take(np.arange(5))
    best, usable = gpu.choose(logits, few), np.isfinite(logits.max(axis=1))
    assert not differences(Best(best.tokens[:5], best.logits[:5]), logits[:5], few)
    assert best.tokens[5:][usable[5:]].tolist() == logits[5:][usable[5:]].argmax(axis=1).tolist()


@needs_compiler
def test_a_recorded_choice_follows_what_is_prepared(
    fake: FakeCuda, kernel: EmulatedKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where more sites and masks come than there was room for, and with one step prepared while another still runs."""
    monkeypatch.setattr(choosing, "_SITES", 16)
    gpu = Gpu(fake, kernel, 3000)
    device, chooser = gpu.device, gpu.chooser
    replay = device.capture(lambda: chooser.enqueue(gpu.logits.ctypes.data, ROWS_OF_A_STEP))
    assert replay is not None
    tokens = [device.host((ROWS_OF_A_STEP,), np.int64) for _ in range(2)]
    values = [device.host((ROWS_OF_A_STEP,), np.float32) for _ in range(2)]
    steps = list(cases(7, 3000, ROWS_OF_A_STEP, 8))
    gpu.logits[...] = logits = steps[0][0]
    for pair in zip(steps[::2], steps[1::2], strict=True):
        for turn, (_, columns) in enumerate(pair):
            chooser.prepare(columns, ROWS_OF_A_STEP)
            replay()
            device.download(tokens[turn], chooser.tokens)
            device.download(values[turn], chooser.logits)
        device.synchronize()
        for turn, (_, columns) in enumerate(pair):
            assert not differences(Best(tokens[turn], values[turn]), logits, columns)


@needs_compiler
def test_choices_take_no_memory_once_the_chooser_is_made(fake: FakeCuda, kernel: EmulatedKernel) -> None:
    gpu, (logits, columns) = Gpu(fake, kernel, 3000), next(cases(7, 3000, ROWS_OF_A_STEP, 1))
    before = len(gpu.device._allocated), len(gpu.device._pinned)
    masks = np.full((ROWS_OF_A_STEP, 94), 0xFFFFFFFF, np.uint32)
    gpu.choose(logits, dataclasses.replace(columns, masked=np.arange(ROWS_OF_A_STEP), masks=masks))
    assert len(columns.seen) > 1000 and before == (len(gpu.device._allocated), len(gpu.device._pinned))


def drawing(columns: Columns, **values: Any) -> Columns:
    """These columns, of which nothing but `values` shapes what is drawn."""
    rows = len(columns)
    none = np.full(rows, False)
    kept = columns.take(np.array([], np.int64))
    off = {
        "temperature": np.ones(rows, np.float32), "top_k": np.zeros(rows, np.int32), "top_p": np.ones(rows),
        "min_p": np.zeros(rows), "greedy": none, "adjusted": none, "forced": np.full(rows, -1),
        "biases": kept.biases, "seen": kept.seen, "bans": kept.bans, "masked": kept.masked, "masks": kept.masks,
    }  # fmt: skip
    return dataclasses.replace(columns, **{**off, **values})


@needs_nvrtc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a", "sm_100a"])
def test_the_kernel_compiles_for_every_generation(architecture: str) -> None:
    assert compile_cubin(source(), "choosing.cu", architecture, EXACT)[:4] == b"\x7fELF"


def test_what_the_gpu_chooses_has_names_of_the_sampler() -> None:
    """All that a request can ask of a choice but log probabilities."""
    params = SamplingParams(
        temperature=1.0, top_k=5, top_p=0.5, min_p=0.1, repetition_penalty=1.1, presence_penalty=1, frequency_penalty=1,
        logit_bias=((1, 1.0),), bad_words=((1,),), min_tokens=1, logprobs=1,
    )  # fmt: skip
    row = SampleRow(params, (), limit=object(), constraint=object())  # type: ignore[arg-type]
    assert row.needs | {"greedy"} == Chooser.chooses | {"logprobs"}
