"""The fused decode kernel on a real GPU: right against PyTorch, then timed; prints a table. Needs PyTorch and cuda-bindings.

    PYTHONPATH=runtime:tests python -m support.fused_trial

Ends itself after 85 s. The kernel gives up where a block is missing, so nothing hangs.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import torch

from support.torch_decoder import Inputs, Weights, expected
from triune_runtime.targets.cuda.fused import decoder as fused
from triune_runtime.targets.cuda.fused.shape import DecoderShape, Gpu, cut
from triune_runtime.targets.cuda.nvrtc import Kernel, Module, compile_cubin, own_architecture, own_sizes
from triune_runtime.targets.device.cuda import CudaDevice
from triune_runtime.targets.device.device import Replay

START = time.monotonic()
LIMIT_S, BANDWIDTH = 85, 3.0e12  # bytes/s that reading reaches
BASE = DecoderShape(
    layers=28, hidden=1536, heads=12, kv_heads=2, head_dim=128, intermediate=8960, vocabulary=151936, epsilon=1e-6,
    dtype="bfloat16", block_tokens=128, qkv_bias=True,
)  # fmt: skip
TINY = dataclasses.replace(BASE, layers=2, hidden=256, intermediate=1152, vocabulary=1000)
LARGE = dataclasses.replace(BASE, hidden=3584, heads=28, kv_heads=4, intermediate=18944, vocabulary=152064)  # 7B
QWEN3 = dataclasses.replace(TINY, heads=8, head_dim=64, qkv_bias=False, qk_norm=True, dtype="float16", block_tokens=32)
PHASES = {"qkv": 1, "out": 2, "gate, up": 4, "down": 8, "head": 16}
CHANGES = (("STAGES", 4), ("STAGES", 6), ("STAGES", 8), ("AHEAD", 64), ("AHEAD", 256))
MEETINGS = 32  # a bit as well: one barrier a layer, and nothing else
# Relative, of a sequence's logits. With four bits, rounding values where the graph does and weights to float16 gives 8e-4 by
# itself (emulated in float32, 2 layers of 1.5B: 9e-4 at most); bfloat16, of three bits less, gives 8 times as much.
ERRORS = {"bfloat16": 2e-2, "float16": 2e-3}  # eight-bit caches: FP8_ERROR
FP8_ERROR = 3e-2  # a new number may be rounded to the next of few


def say(*words: object) -> None:
    print(f"[{time.monotonic() - START:5.1f}]", *words, flush=True)


class Wanted(NamedTuple):
    """A kernel to compile."""

    shape: DecoderShape
    batch: int
    phases: int = 0x1F
    attention: bool = True
    instead: tuple[tuple[str, int], ...] = ()  # of the constants that are cut


def compile_in_background(wanted: list[Wanted], gpu: Gpu) -> dict[Wanted, Future[bytes]]:
    """In this order, on many threads."""
    architecture, source = own_architecture(), fused.kernel_source()

    def one(w: Wanted) -> bytes:
        work = cut(w.shape, w.batch, gpu, w.phases, w.attention)
        assert work is not None, f"{w} is not supported on {gpu}"
        constants = work.constants | dict(w.instead)
        return compile_cubin(source, "step.cu", architecture, fused.define_options(constants))

    pool = ThreadPoolExecutor(16)
    return {w: pool.submit(one, w) for w in dict.fromkeys(wanted)}


class Trial:
    def __init__(self) -> None:
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.zeros(1, device="cuda")
        self.device, self.gpu = CudaDevice(), Gpu(*own_sizes())
        self.stream = torch.cuda.ExternalStream(self.device.stream)
        self.cubins: dict[Wanted, Future[bytes]] = {}
        self.failures: list[str] = []

    def recorded(self, wanted: Wanted, weights: Weights, inputs: Inputs) -> Replay:
        """A step in a CUDA graph."""

        def load(source: str, name: str, options: tuple[str, ...]) -> Kernel:
            return Module(self.cubins[wanted].result(), "step.cu").kernel(name)

        torch.cuda.synchronize()
        decoder = fused.FusedDecoder(
            weights.shape, wanted.batch, self.gpu, device=self.device,
            compile_kernel=load, phases=wanted.phases, attention=wanted.attention,
        )  # fmt: skip

        decoder.bind(weights.addresses)

        def enqueue() -> None:
            decoder.enqueue(self.device.stream, inputs.addresses)

        if (replay := self.device.capture(enqueue)) is None:
            self.failures.append(f"{wanted[1:]} cannot be recorded")
        return replay or enqueue

    def right(self, shape: DecoderShape, lengths: list[int], title: str) -> None:
        """Compare the logits with PyTorch's."""
        inputs = Inputs(shape, lengths)
        weights = Weights(shape, inputs.blocks)
        reference = expected(weights, inputs)
        replay = self.recorded(Wanted(shape, len(lengths)), weights, inputs)
        for run in range(3):
            inputs.logits.zero_()
            torch.cuda.synchronize()
            replay()
            self.device.synchronize()
            errors = ((inputs.logits - reference).norm(dim=1) / reference.norm(dim=1)).tolist()
            say(f"{title}, batch {len(lengths)}, run {run}: errors", " ".join(f"{e:.1e}" for e in errors))
            if not max(errors) < (FP8_ERROR if shape.fp8_cache else ERRORS[shape.dtype]):
                self.failures.append(f"{title}, batch {len(lengths)}: {max(errors)}")

    def time_us(self, wanted: Wanted, weights: Weights, inputs: Inputs, runs: int = 12) -> float:
        """Microseconds of one step inside a CUDA graph, the median of `runs`."""
        replay = self.recorded(wanted, weights, inputs)
        events: list[tuple[Any, Any]] = []
        for _ in range(runs + 2):
            pair = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            pair[0].record(self.stream)
            replay()
            pair[1].record(self.stream)
            events.append(pair)
        self.device.synchronize()
        return 1e3 * sorted(a.elapsed_time(b) for a, b in events[2:])[runs // 2]


def in_int4(shape: DecoderShape) -> DecoderShape:
    """The same with weights of four bits, and a head of eight."""
    return dataclasses.replace(shape, dtype="float16", weight_bits=4, head_bits=8)


def phase_bytes(s: DecoderShape) -> dict[str, int]:
    query, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    matrices = {
        "qkv": (query + 2 * kv) * s.hidden, "out": query * s.hidden, "gate, up": 2 * s.intermediate * s.hidden,
        "down": s.intermediate * s.hidden,
    }  # fmt: skip
    bytes_of = {16: 2.0, 8: 1 + 2 / 32, 4: 0.5 + 2 / 32}
    sizes = {name: int(s.layers * size * bytes_of[s.weight_bits]) for name, size in matrices.items()}
    return sizes | {"head": int(s.vocabulary * s.hidden * bytes_of[s.head_bits])}


def timings(trial: Trial, s: DecoderShape, title: str, contexts: tuple[int, ...], phases: tuple[int, ...]) -> None:
    """Steps at each batch and context; at the batches `phases` each phase alone, too."""
    say(title)
    batches = (1, 2, 4, 8) if phases else (1, 8)
    lengths = {(b, c): [c] * b for c in contexts for b in batches}
    weights = Weights(s, 8 * 16)
    sizes = phase_bytes(s)

    def line(title: str, us: float, size: int) -> None:
        say(f"{title:28} {us:8.1f} us  {size / us / 1e3:7.0f} GB/s  {100 * size / us / 1e-6 / BANDWIDTH:5.1f}% of 3.0 TB/s")

    for (batch, context), each in lengths.items():
        us = trial.time_us(Wanted(s, batch), weights, Inputs(s, each))
        cache = batch * context * s.layers * s.kv_heads * s.head_dim * 4
        line(f"step, batch {batch}, context {context}", us, sum(sizes.values()) + cache)
    for batch in phases:
        inputs = Inputs(s, [512] * batch)
        for name, bit in PHASES.items():
            line(f"{name} alone, batch {batch}", trial.time_us(Wanted(s, batch, bit, False), weights, inputs), sizes[name])
        us = trial.time_us(Wanted(s, batch, 0, True), weights, inputs)
        say(f"attention alone, batch {batch}: {us:.1f} us, a layer {us / s.layers:.2f}")
        us = trial.time_us(Wanted(s, batch, 0x1F, False), weights, inputs)
        line(f"all but attention, batch {batch}", us, sum(sizes.values()))

    if not phases:
        return
    us = trial.time_us(Wanted(s, 1, MEETINGS, False), weights, Inputs(s, [512]))
    say(f"{s.layers} barriers alone: {us:.1f} us")
    for change in CHANGES:
        us = trial.time_us(Wanted(s, 1, instead=(change,)), weights, Inputs(s, [512]))
        line(f"step, batch 1, {change[0]} {change[1]}", us, sum(sizes.values()))


def main() -> None:
    faulthandler.dump_traceback_later(LIMIT_S, exit=True)
    trial = Trial()
    say(torch.cuda.get_device_name(), trial.gpu)
    small = dataclasses.replace(BASE, layers=2)
    checks = [
        (TINY, [300], "tiny qwen2"), (QWEN3, [0, 5], "tiny qwen3"), (TINY, [1, 127, 128, 513], "tiny qwen2"),
        (QWEN3, [0, 700, 31, 32, 64, 1, 255, 100], "tiny qwen3"), (small, [512], "2 layers of 1.5B"),
        (small, [2000, 0, 17, 512, 128, 127, 1030, 300], "2 layers of 1.5B"),
        (in_int4(small), [512], "2 layers of 1.5B, int4"),
        (in_int4(dataclasses.replace(TINY, hidden=320, intermediate=1216)), [7, 130], "tiny, int4, in odd sizes"),
        (in_int4(small), [2000, 0, 17, 512], "2 layers of 1.5B, int4"),
        (in_int4(small), [2000, 0, 17, 512, 128, 127, 1030, 300], "2 layers of 1.5B, int4"),
        (dataclasses.replace(LARGE, layers=1), [300], "a layer of 7B"),
        (in_int4(dataclasses.replace(LARGE, layers=1)), [300, 5, 0, 64, 1, 127, 128, 9], "a layer of 7B, int4"),
    ]  # fmt: skip
    wanted = [Wanted(shape, len(lengths)) for shape, lengths, _ in checks]
    for shape in (BASE, in_int4(BASE)):
        wanted += [Wanted(shape, batch) for batch in (1, 2, 4, 8)]
        for batch in (1, 8):
            wanted += [Wanted(shape, batch, bit, False) for bit in (*PHASES.values(), 0x1F)] + [Wanted(shape, batch, 0, True)]
        wanted += [Wanted(shape, 1, MEETINGS, False), *(Wanted(shape, 1, instead=(change,)) for change in CHANGES)]
    wanted += [Wanted(shape, batch) for shape in (LARGE, in_int4(LARGE)) for batch in (1, 8)]
    trial.cubins = compile_in_background(wanted, trial.gpu)
    for check in checks:
        trial.right(*check)
    for shape, title in ((BASE, "1.5B, bf16"), (in_int4(BASE), "1.5B, int4")):
        torch.cuda.empty_cache()
        timings(trial, shape, title, (512, 2000), (1, 8))
    for shape, title in ((in_int4(LARGE), "7B, int4"), (LARGE, "7B, bf16")):
        torch.cuda.empty_cache()
        timings(trial, shape, title, (512,), ())
    faulthandler.cancel_dump_traceback_later()
    assert not trial.failures, trial.failures
    say("all right")


if __name__ == "__main__":
    main()
