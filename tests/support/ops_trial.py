"""Custom ops on a real GPU: kernels right against PyTorch and timed, then engines of two layers with and without them.

    PYTHONPATH=builder:runtime:tests:. python -m support.ops_trial

Needs PyTorch, onnxruntime-gpu, cuda-bindings and a C compiler, nothing installed. Prints a line for all that it tries, and goes
on after a failure; ends with 1 if there was one, and itself after 100 s.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import logging
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fakes.cuda_graphs import lowered, tiny
from support.attempts import Attempts
from triune_runtime.manifest import EngineManifest, Limits
from triune_runtime.runner import Table, Work
from triune_runtime.targets.cuda.loading import cuda_runner
from triune_runtime.targets.cuda.nvrtc import Kernel, Module
from triune_runtime.targets.cuda.ops.kernels import FAST, NAMES, SOURCE, options, source
from triune_runtime.targets.cuda.ops.library import build, library_path
from triune_runtime.targets.cuda.plan import FUSED_SWITCH, OPS_SWITCH, CudaPlan
from triune_runtime.targets.device.cuda import CudaDevice

START = time.monotonic()
LIMIT_S = 100
TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
ERRORS = {"bfloat16": 2**-8, "float16": 2**-11}  # of the largest number: half of a last place, and some
ROWS = (64, 256, 2048, 8192)
HIDDEN, INNER, HEADS, KV_HEADS, DIM, LONGEST = 1536, 8960, 12, 2, 128, 8192  # of a model of 1.5B
LAUNCHES = 28  # in a CUDA graph: one a layer
HEADED = {"head_dim": 128, "num_attention_heads": 12, "num_key_value_heads": 2, "num_hidden_layers": 2}
WIDE = HEADED | {"hidden_size": HIDDEN, "intermediate_size": INNER}
SMALL = HEADED | {"hidden_size": 256, "intermediate_size": 520}
ENGINES: tuple[tuple[str, str, dict[str, Any], bool], ...] = (  # the last: whether to time it
    ("qwen2", "bf16", WIDE, True), ("qwen2", "fp16", SMALL, False), ("qwen3", "bf16", SMALL, False),
    ("qwen3", "fp16", SMALL, False), ("llama", "int4", HEADED | {"hidden_size": 256, "intermediate_size": 512}, False),
    ("mistral", "bf16", SMALL | {"sliding_window": 140}, False), ("qwen2", "bf16-fp8kv", SMALL, False),
    ("deepseek_v3", "fp16", {"n_group": 1, "topk_group": 1, "num_experts_per_tok": 8}, False),
)  # fmt: skip
APART = {"bf16": 6e-2, "fp16": 1e-2, "int4": 2e-2, "bf16-fp8kv": 0.15}
LIMITS = Limits(max_sequences=256, max_length=2304, prefill_chunk=2048)


def say(*words: object) -> None:
    print(f"[{time.monotonic() - START:5.1f}]", *words, flush=True)


class Kernels:
    """Both kernels for one type, and what they are launched with."""

    def __init__(self, device: CudaDevice, dtype: str) -> None:
        self.device, self.dtype = device, dtype
        module = Module.compile(source(), SOURCE, (*options(dtype), *FAST))
        self.swiglu, self.rotate = (module.kernel(name) for name in NAMES)

    def random(self, *shape: int, scale: float = 1.0) -> torch.Tensor:
        return (scale * torch.randn(shape, device="cuda")).to(TYPES[self.dtype])

    def launch(self, kernel: Kernel, threads: int, *arguments: Any) -> None:
        given = [np.uint64(a.data_ptr()) if isinstance(a, torch.Tensor) else a for a in arguments]
        kernel.launch(self.device.stream, (-(-threads // 256), 1, 1), (256, 1, 1), given)

    def gate(self, gate: torch.Tensor, up: torch.Tensor, y: torch.Tensor) -> None:
        sizes = [np.int64(n) for n in (y.numel(), y.shape[1], gate.stride(0))]
        self.launch(self.swiglu, -(-y.numel() // 8), gate, up, y, *sizes)

    def turn(self, packed: torch.Tensor, more: list[Any], ends: torch.Tensor, past: torch.Tensor, parts: list[Any]) -> None:
        """`more`: bias, norms, angles; what there is not is np.uint64(0)."""
        sizes = [np.int32(n) for n in (len(packed), len(past), HEADS, KV_HEADS, DIM)]
        self.launch(self.rotate, packed.numel() // 16, packed, *more, ends, past, *parts, *sizes, np.float32(1e-6))

    def parts(self, rows: int) -> list[torch.Tensor]:
        return [torch.empty(rows, heads * DIM, dtype=TYPES[self.dtype], device="cuda") for heads in (HEADS, KV_HEADS, KV_HEADS)]

    def check(self, name: str, found: torch.Tensor, expected: torch.Tensor) -> None:
        error = float((found.float() - expected).abs().max() / expected.abs().max())
        say(f"{name}, {self.dtype}: largest error {error:.1e} of the largest number")
        assert error < ERRORS[self.dtype], f"{name} is wrong"

    def right(self) -> None:
        for shape in ((1, 7), (5, 8960), (33, 1001)):
            gate, up = self.random(*shape, scale=4), self.random(*shape)
            y = torch.empty_like(gate)
            torch.cuda.synchronize()
            self.gate(gate, up, y)
            self.device.synchronize()
            self.check(f"SwiGLU {shape}", y, torch.nn.functional.silu(gate.float()) * up.float())
            gate, up = self.random(shape[0], 2 * shape[1], scale=3).chunk(2, dim=1)
            torch.cuda.synchronize()
            self.gate(gate, up, y)
            self.device.synchronize()
            self.check(f"SwiGLU of halves {shape}", y, torch.nn.functional.silu(gate.float()) * up.float())
        lengths, past = torch.tensor([3, 0, 700, 1]), torch.tensor([0, 9, 1300, 2047])
        positions = torch.cat([start + torch.arange(n) for start, n in zip(past, lengths, strict=True)]).cuda()
        rows = len(positions)
        angles = torch.rand(LONGEST, DIM // 2, device="cuda") * 6
        tables = [angles.cos().to(TYPES[self.dtype]), angles.sin().to(TYPES[self.dtype])]
        ends = torch.cat([torch.zeros(1), lengths.cumsum(0)]).int().cuda()
        width = (HEADS + 2 * KV_HEADS) * DIM
        packed, bias, norms = self.random(rows, width), self.random(width), [self.random(DIM), self.random(DIM)]
        for name, used in (("bias", [True, False]), ("norms", [False, True])):
            parts, more = self.parts(rows), [bias if used[0] else np.uint64(0)]
            more += norms if used[1] else [np.uint64(0)] * 2
            torch.cuda.synchronize()
            self.turn(packed, [*more, *tables], ends, past.int().cuda(), parts)
            self.device.synchronize()
            wide = (packed.float() + (bias.float() if used[0] else 0)).view(rows, -1, DIM)
            wanted = list(wide.split([HEADS, KV_HEADS, KV_HEADS], dim=1))
            for i in range(2):
                if used[1]:
                    scale = (wanted[i].square().mean(-1, keepdim=True) + 1e-6).rsqrt()
                    wanted[i] = wanted[i] * scale * norms[i].float()
                a, b = wanted[i].chunk(2, dim=-1)
                c, s = (table.float()[positions][:, None] for table in tables)
                wanted[i] = torch.cat([a * c - b * s, b * c + a * s], -1)
            for part, found, expected in zip(("query", "key", "value"), parts, wanted, strict=True):
                self.check(f"RotaryQKV with {name}, {part}", found, expected.reshape(rows, -1))

    def times(self) -> None:
        angles = self.random(LONGEST, DIM // 2)
        width = (HEADS + 2 * KV_HEADS) * DIM
        for rows in ROWS:
            gate, up, y = (self.random(rows, INNER) for _ in range(3))
            us = time_us(self.device, lambda: self.gate(gate, up, y))  # noqa: B023 (called before the next turn)
            say(f"SwiGLU, {self.dtype}, {rows} rows: {us:.1f} us a layer, {3 * gate.nbytes / us / 1e3:.0f} GB/s")
            halves = self.random(rows, 2 * INNER).chunk(2, dim=1)
            us = time_us(self.device, lambda: self.gate(*halves, y))  # noqa: B023
            say(f"SwiGLU of halves, {self.dtype}, {rows} rows: {us:.1f} us a layer")
            packed, bias, parts = self.random(rows, width), self.random(width), self.parts(rows)
            decodes = rows <= 256
            ends = torch.arange(rows + 1 if decodes else 2, device="cuda").int() * (1 if decodes else rows)
            past = torch.zeros(len(ends) - 1, device="cuda").int()
            more = [bias, np.uint64(0), np.uint64(0), angles, angles]
            us = time_us(self.device, lambda: self.turn(packed, more, ends, past, parts))  # noqa: B023
            say(f"RotaryQKV, {self.dtype}, {rows} rows: {us:.1f} us a layer, {2 * packed.nbytes / us / 1e3:.0f} GB/s")


def time_us(device: CudaDevice, queue: Callable[[], None], runs: int = 7) -> float:
    """Of one call, in a CUDA graph of `LAUNCHES`: the median."""
    torch.cuda.synchronize()
    replay = device.capture(lambda: [queue() for _ in range(LAUNCHES)] and None)
    assert replay is not None, "it cannot be recorded"
    return event_us(device.stream, replay, runs) / LAUNCHES


def event_us(stream: int, run: Callable[[], Any], runs: int) -> float:
    found, on = [], torch.cuda.ExternalStream(stream)
    for _ in range(runs + 2):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record(on)
        run()
        last.record(on)
        last.synchronize()
        found.append(1e3 * first.elapsed_time(last))
    return sorted(found[2:])[runs // 2]


def products() -> None:
    """Gate and up as two products or as one: whether one would be faster, whose gate kernel moves the same bytes."""
    both = torch.randn(2 * INNER, HIDDEN, device="cuda").bfloat16()
    gate, up = both[:INNER], both[INNER:]
    for rows in ROWS:
        x = torch.randn(rows, HIDDEN, device="cuda").bfloat16()
        found = []
        for queue in (lambda: (x @ gate.T, x @ up.T), lambda: x @ both.T):  # noqa: B023 (called before the next turn)
            queue()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                for _ in range(LAUNCHES):
                    queue()
            found.append(event_us(torch.cuda.current_stream().cuda_stream, graph.replay, 7) / LAUNCHES)
        say(f"gate and up, {rows} rows: two products {found[0]:.1f} us a layer, one {found[1]:.1f}")


def engine(architecture: str, precision: str, changes: dict[str, Any], is_timed: bool, folder: Path) -> None:
    """The same prompts and decodes with custom ops and without: logits alike, and not the same bits."""
    made = lowered(tiny(architecture, **changes), precision, folder, length=LIMITS.max_length)
    sequences = LIMITS.max_sequences if is_timed else 12
    manifest = dataclasses.replace(made.manifest, limits=dataclasses.replace(LIMITS, max_sequences=sequences))
    with_ops, without = (logits_of(manifest, folder, switch, is_timed) for switch in ("", "off"))
    name = f"{architecture}, {precision}"
    pairs = [np.abs(a - b).max(-1) / np.abs(b).max(-1) for a, b in zip(with_ops, without, strict=True)]
    say(f"{name}: with beside without, of the largest logit:", " ".join(f"{pair.max():.1e}" for pair in pairs))
    assert 0 < max(float(np.median(pair)) for pair in pairs) < APART[precision], "0: no custom op ran; more: they differ"


def logits_of(manifest: EngineManifest, folder: Path, switch: str, is_timed: bool) -> list[Any]:
    os.environ[OPS_SWITCH], os.environ[FUSED_SWITCH] = switch, "off"
    size, count = CudaPlan.of(manifest).block_tokens, manifest.limits.max_sequences
    runner = cuda_runner(manifest, folder, blocks=None if is_timed else 200, chooses=False)
    runner.warm_up()
    chance, lengths = random.Random(5), [1, 130, 257, 64, 300, 7, 128, 255, 20, 31, 32, 33]
    texts = [[chance.randrange(manifest.vocab_size) for _ in range(length + 2)] for length in lengths]
    each = -(-max(map(len, texts)) // size)
    tables = [Table(slot, tuple(range(slot * each, (slot + 1) * each))) for slot in range(len(texts))]
    found = [
        runner.launch([Work(slot, 0, tuple(text[:-2])) for slot, text in enumerate(texts)], tables).collect().logits.copy()
    ]
    for step in (2, 1):
        work = [Work(slot, len(text) - step, (text[-step],)) for slot, text in enumerate(texts)]
        found.append(runner.launch(work).collect().logits.copy())
    if is_timed:
        stream = runner._device.stream  # type: ignore[attr-defined]
        blocks = tuple(range(-(-2049 // size)))
        prompt = [Work(0, 0, tuple(chance.randrange(manifest.vocab_size) for _ in range(2048)))]
        many = [Work(slot, 512, (slot % manifest.vocab_size,)) for slot in range(count)]
        shared = [Table(slot, blocks[:5]) for slot in range(count)]
        runner.launch(prompt, [Table(0, blocks)]).collect()
        said = f"{'without' if switch else 'with'} custom ops, 2 layers:"
        us = event_us(stream, lambda: runner.launch(prompt).collect(), 9)
        say(said, f"a prompt of 2,048 tokens {us:.0f} us")
        runner.launch(many, shared).collect()
        us = event_us(stream, lambda: runner.launch(many).collect(), 9)
        say(said, f"a decode of {count} sequences {us:.0f} us")
    runner.close()
    return found


def main() -> None:
    faulthandler.dump_traceback_later(LIMIT_S, exit=True)
    logging.basicConfig(level=logging.INFO, format="        %(message)s")
    attempt = Attempts(say)
    torch.zeros(1, device="cuda")
    device = CudaDevice()
    say(torch.cuda.get_device_name())
    for dtype in TYPES:
        attempt(f"kernels, {dtype}", lambda dtype=dtype: Kernels(device, dtype).right())
    attempt("library", lambda: build(library_path()))
    attempt("times", lambda: Kernels(device, "bfloat16").times())
    attempt("products", products)
    torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as name:
        for number, row in enumerate(ENGINES):
            folder = Path(name) / str(number)
            folder.mkdir()
            attempt(f"engine {row[:2]}", lambda row=row, folder=folder: engine(*row, folder))
    faulthandler.cancel_dump_traceback_later()
    say("\n".join(["failures:", *attempt.failures]) if attempt.failures else "all right")
    sys.exit(bool(attempt.failures))


if __name__ == "__main__":
    main()
