"""One engine of full width with random weights, driven as the step loop drives it, beside PyTorch in float32 on the GPU.

    PYTHONPATH=builder:runtime:tests:. python -m support.full_size_trial SHAPE PRECISION FOLDER

Builds into FOLDER, prints the greatest relative error of any row of logits for each kind of step, ends with 1 if one is over
its bound, and by itself after 100 s. tests/gpu/test_full_size.py runs all of them.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench.gpu.shapes import SHAPES, write_checkpoint

from support.dense_reference import DenseReference, read_checkpoint, with_codes
from triune_runtime.manifest import EngineManifest
from triune_runtime.runner import Order, Runner, Table, Work
from triune_runtime.targets.cuda.plan import CudaPlan

Check = Callable[[str, float], None]
LIMIT_S = 100
SLOTS, LENGTH, PROMPTS, REPLAYS = 64, 520, (37, 130, 300, 459), 200
ENDS = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_FEW = 32_768  # tokens of the vocabulary; the head is one product like the others
OWN_SHAPES: dict[str, dict[str, Any]] = {
    f"{kind}-4": SHAPES["1.5b"]
    | {"model_type": kind, "architectures": [name], "attention_bias": False, "num_hidden_layers": 4, "head_dim": 128,
       "vocab_size": _FEW, "bos_token_id": 1, "eos_token_id": 1}
    for kind, name in ENDS.items()
} | {"qwen2-28": SHAPES["1.5b"]}  # fmt: skip
# Of a row of logits, of itself. Twice to four times what was measured for two layers: float16 5e-4, bfloat16 5e-3, eight-bit
# caches 6e-3. Products of few bits are held against the weights that they stand for; those of few rows add up in float16.
BOUNDS = {"fp16": 2e-3, "bf16": 2e-2, "int4": 4e-3, "bf16-fp8kv": 3e-2, "int4-fp8kv": 3e-2}
_DEEP = 2.0  # times as much for a whole model: errors of layers add up


def bound(shape: str, precision: str) -> float:
    return BOUNDS[precision] * (_DEEP if shape.endswith("-28") else 1)


class Drive:
    """Texts in slots, whose logits are known."""

    def __init__(self, runner: Runner, reference: DenseReference, vocab_size: int, block: int, slots: int, length: int) -> None:
        self._runner, self._reference, self.rng = runner, reference, random.Random(5)
        self.texts = [[self.rng.randrange(vocab_size) for _ in range(length)] for _ in range(slots)]
        self.done = [0] * slots
        each = -(-length // block)
        blocks = self.rng.sample(range(each * slots), each * slots)
        self._orders: list[Order] = [Table(n, tuple(blocks[n * each : (n + 1) * each])) for n in range(slots)]
        self._hidden: dict[int, torch.Tensor] = {}

    def work(self, slot: int, count: int, drafts: int = 0) -> Work:
        start = self.done[slot]
        self.done[slot] += count
        return Work(slot, start, tuple(self.texts[slot][start : start + count]), drafts)

    def left(self, slot: int) -> int:
        return len(self.texts[slot]) - self.done[slot]

    def error(self, work: Sequence[Work]) -> float:
        """Run a step: the greatest error of a row, of itself."""
        found = self._runner.launch(list(work), tuple(self._orders)).collect().logits
        self._orders = []
        rows = []
        for item in work:
            if item.slot not in self._hidden:
                self._hidden[item.slot] = self._reference.hidden(self.texts[item.slot])
            stop = item.start + len(item.tokens)
            rows.append(self._hidden[item.slot][stop - item.rows : stop])
        expected = self._reference.logits(torch.cat(rows))
        made = torch.from_numpy(found).to(expected.device)
        assert made.shape == expected.shape, f"{made.shape}, not {expected.shape}"
        errors = (made - expected).norm(dim=1) / expected.norm(dim=1)
        return float("inf") if not bool(errors.isfinite().all()) else float(errors.max())


def drive(run: Drive, check: Check, replays: int = REPLAYS, prompts: Sequence[int] = PROMPTS) -> None:
    """All kinds of steps. The first slots have `prompts`, the others prompts of any length."""
    slots, rng = len(run.texts), run.rng
    check("packed ragged prompts", run.error([run.work(slot, size) for slot, size in enumerate(prompts)]))
    new = len(prompts)
    mixed = [*(run.work(slot, 1) for slot in range(new)), run.work(new, prompts[1]), run.work(new + 1, prompts[0])]
    check("chunks beside decodes", run.error(mixed))
    check("a further chunk, a decode", run.error([run.work(new, 20), run.work(0, 1)]))
    check("ragged decodes", max(run.error([run.work(slot, 1) for slot in range(new + 2)]) for _ in range(3)))
    check("drafts of 3, 1 and none", run.error([run.work(0, 4, 3), run.work(1, 2, 1), run.work(2, 1)]))
    check("a prompt's own logits", run.error([run.work(new, 9)._replace(scored=True)]))
    for first in range(new + 2, slots, 4):
        run.error([run.work(slot, rng.randint(1, max(prompts) * 2 // 3)) for slot in range(first, min(first + 4, slots))])
    worst = {"of up to 8": 0.0, "of more": 0.0}
    for _ in range(replays):
        batch = rng.randint(1, slots) if rng.random() < 0.6 else rng.randint(1, min(8, slots))
        chosen = [slot for slot in rng.sample(range(slots), batch) if run.left(slot)]
        kind = "of up to 8" if len(chosen) <= 8 else "of more"
        if chosen:
            worst[kind] = max(worst[kind], run.error([run.work(slot, 1) for slot in chosen]))
    for kind, error in worst.items():
        check(f"{replays} replays, those {kind}", error)


def louder(checkpoint: Path) -> Path:
    """Embeddings 64 times as large, so that layers add to them as they do in models that were trained."""
    path = checkpoint / "model.safetensors"
    with path.open("rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        begin, end = json.loads(file.read(size))["model.embed_tokens.weight"]["data_offsets"]
    raw = np.memmap(path, np.uint8, "r+", 8 + size + begin, (end - begin,))
    raw[:] = (torch.from_numpy(np.array(raw)).view(torch.bfloat16) * 64).view(torch.uint8).numpy()
    raw.flush()
    return checkpoint


def build(checkpoint: Path, precision: str, folder: Path) -> Path:
    """The folder of the engine."""
    command = [sys.executable, "-m", "triune_builder", "build", "--model", str(checkpoint), "--target", "cuda"]
    command += ["--precision", precision, "--verify", "none", "--max-length", "1024", "--max-sequences", str(SLOTS)]
    command += ["--prefill-chunk", "1024", "--build-dir", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert not done.returncode, done.stdout[-3000:]
    return next(Path(done.stdout.splitlines()[-1]).rglob("engine.json")).parent


def reference_of(config: Mapping[str, Any], checkpoint: Path, engine: Path, precision: str, device: str) -> DenseReference:
    weights = read_checkpoint(checkpoint, device)
    return DenseReference(config, with_codes(weights, engine) if precision.startswith("int4") else weights)


def main() -> None:
    from triune_runtime.targets.cuda.loading import cuda_runner

    shape, precision, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    faulthandler.dump_traceback_later(LIMIT_S, exit=True)
    logging.basicConfig(level=logging.INFO, format="  %(message)s")
    torch.backends.cuda.matmul.allow_tf32 = False
    began, most, over = time.monotonic(), bound(shape, precision), list[str]()
    SHAPES[shape] = OWN_SHAPES[shape]
    checkpoint = louder(write_checkpoint(shape, folder / f"{shape}-{os.getpid()}"))
    engine = build(checkpoint, precision, folder / f"{shape}-{precision}")
    built = time.monotonic()
    manifest = EngineManifest.load(engine)
    block = CudaPlan.of(manifest).block_tokens
    runner = cuda_runner(manifest, engine, blocks=SLOTS * -(-LENGTH // block))
    runner.warm_up()
    loaded = time.monotonic()
    reference = reference_of(OWN_SHAPES[shape], checkpoint, engine, precision, "cuda")

    def check(what: str, error: float) -> None:
        print(f"{shape} {precision}: {what}: {error:.1e}", "" if error < most else f"OVER {most:.0e}", flush=True)
        if not error < most:
            over.append(what)

    with torch.no_grad():
        drive(Drive(runner, reference, manifest.vocab_size, block, SLOTS, LENGTH), check)
    runner.close()
    times = (built - began, loaded - built, time.monotonic() - loaded)
    print(f"{shape} {precision}: built in {times[0]:.1f} s, ready after {times[1]:.1f} s, driven for {times[2]:.1f} s")
    sys.exit(bool(over))


if __name__ == "__main__":
    main()
