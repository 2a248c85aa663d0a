"""Engines for CUDA on a real GPU, from checkpoint to answer: built, proved by running, asked; the kernel beside the graph.

    PYTHONPATH=builder:runtime:tests:models/r1-nano:. python -m support.cuda_trial

Needs PyTorch, onnxruntime-gpu and cuda-bindings, nothing installed. Prints a line for all that it tries, and goes on after a
failure; ends with 1 if there was one, and itself after 240 s.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench.gpu.shapes import write_checkpoint
from numpy.typing import NDArray

from r1_nano.problems import held_out
from r1_nano.recipe import Recipe
from r1_nano.scoring import is_right
from r1_nano.tokenizer import END_THINK, prompt_text
from support.attempts import Attempts
from triune_runtime.manifest import EngineManifest
from triune_runtime.request import Chunk, Request, SamplingParams, join
from triune_runtime.runner import Runner, Table, Work
from triune_runtime.starting import step_loop
from triune_runtime.targets import make_runner
from triune_runtime.targets.cuda.plan import FUSED_SWITCH, CudaPlan
from triune_runtime.text.tokenizer import TextTokenizer

Logits = NDArray[np.float32]
START = time.monotonic()
LIMIT_S = 240
NANO = Path(__file__).parents[2] / "models" / "r1-nano" / "checkpoint"
TINY = (("tiny", "bf16"), ("tiny-llama", "fp16"), ("tiny-qwen3", "bf16"), ("tiny-qwen3", "fp16"))
SUMS = 20
LENGTHS = (1, 130, 257, 64, 300, 7, 128, 255)  # of prompts before decoding
STEPS = 6
BATCHES = (1, 3, 8)
ERRORS = {"bfloat16": 5e-2, "float16": 8e-3}  # the graph rounds logits to these types, the kernel does not


def say(*words: object) -> None:
    print(f"[{time.monotonic() - START:5.1f}]", *words, flush=True)


def build(model: Path, precision: str, folder: Path) -> Path:
    """Build and prove by running: the folder of engine.json."""
    began = time.monotonic()
    command = [sys.executable, "-m", "triune_builder", "build", "--model", str(model), "--target", "cuda"]
    command += ["--precision", precision, "--verify", "full", "--max-length", "2048", "--build-dir", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{model.name}, {precision}: no build\n{done.stdout[-3000:]}")
    say(f"{model.name}, {precision}: built and proved in {time.monotonic() - began:.1f} s")
    print("\n".join(line for line in done.stdout.splitlines() if line.startswith(("verify", "warning"))))
    return next(Path(done.stdout.splitlines()[-1]).rglob("engine.json")).parent


def decodes_of(folder: Path, manifest: EngineManifest, switch: str) -> dict[int, list[Logits]]:
    """The logits of decodes of each of `BATCHES`, step by step."""
    os.environ[FUSED_SWITCH] = switch
    runner = make_runner(manifest, folder)
    runner.warm_up()
    found = {batch: decode(runner, manifest, batch) for batch in BATCHES}
    runner.close()
    return found


def decode(runner: Runner, manifest: EngineManifest, batch: int) -> list[Logits]:
    """Of `batch` sequences behind their prompts."""
    size, chance = CudaPlan.of(manifest).block_tokens, random.Random(batch)
    each = -(-(max(LENGTHS) + STEPS) // size)
    blocks = chance.sample(range(each * batch), each * batch)
    tables = [Table(slot, tuple(blocks[slot * each : (slot + 1) * each])) for slot in range(batch)]
    texts = [[chance.randrange(manifest.vocab_size) for _ in range(length + STEPS)] for length in LENGTHS[:batch]]
    prompts = [Work(slot, 0, tuple(text[:-STEPS])) for slot, text in enumerate(texts)]
    runner.launch(prompts, tables).collect()
    found = []
    for step in range(STEPS):
        places = [len(text) - STEPS + step for text in texts]
        work = [Work(slot, at, (texts[slot][at],)) for slot, at in enumerate(places)]
        found.append(runner.launch(work).collect().logits.copy())
    return found


def kernel_beside_graph(folder: Path) -> None:
    """Decodes by the fused kernel and by the graph give the same logits but for rounding."""
    manifest = EngineManifest.load(folder)
    plan = CudaPlan.of(manifest)
    assert plan.decoder, f"{manifest.model} names no decoder"
    kernel, graph = decodes_of(folder, manifest, ""), decodes_of(folder, manifest, "off")
    for batch in BATCHES:
        pairs = zip(kernel[batch], graph[batch], strict=True)
        errors = [float((np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)).max()) for a, b in pairs]
        say(f"{manifest.model}, {plan.dtype}, {batch} sequences: kernel beside graph", " ".join(f"{e:.1e}" for e in errors))
        assert 0 < max(errors) < ERRORS[plan.dtype], "0: it was the same code; more: they differ"


def sums(folder: Path) -> None:
    """r1-nano works out sums that it was never shown."""
    manifest = EngineManifest.load(folder)
    tokenizer = TextTokenizer.load(folder, manifest)
    loop = step_loop(manifest, make_runner(manifest, folder), tokenizer.token_bytes())
    loop.start()
    asked = held_out(Recipe(), "add", SUMS)
    for key, one in enumerate(asked):
        prompt = tokenizer.encode_rendered(prompt_text(one.messages, thinks=one.thinks))
        loop.submit(Request(key=key, prompt=tuple(prompt), params=SamplingParams(max_tokens=760)))
    began, answers = time.monotonic(), dict[int, Chunk]()
    while loop.has_work:
        for event in loop.step():
            assert isinstance(event.item, Chunk), f"sum {event.key}: {event.item}"
            before = answers.get(event.key)
            answers[event.key] = event.item if before is None else join(before, event.item)
    took, tokens = time.monotonic() - began, sum(answer.new_tokens for answer in answers.values())
    texts = [tokenizer.decode(list(answers[key].cut.token_ids)) for key in range(len(asked))]
    right = [is_right(one, text.rpartition(END_THINK)[2]) for one, text in zip(asked, texts, strict=True)]
    loop.close()
    say(f"r1-nano: {sum(right)} of {len(right)} sums right, {tokens} tokens in {took:.2f} s")
    if not all(right):
        wrong = right.index(False)
        print(asked[wrong].messages, texts[wrong], sep="\n")
    assert sum(right) >= SUMS - 1, "sums are wrong"


def main() -> None:
    faulthandler.dump_traceback_later(LIMIT_S, exit=True)
    logging.basicConfig(level=logging.INFO, format="        %(message)s")
    attempt = Attempts(say)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        attempt("r1-nano", lambda: sums(build(NANO, "bf16", folder / "nano")))
        for shape, precision in TINY:

            def one(shape: str = shape, precision: str = precision) -> None:
                model = write_checkpoint(shape, folder / "checkpoints" / shape)
                kernel_beside_graph(build(model, precision, folder / f"{shape}-{precision}"))

            attempt(f"{shape}, {precision}", one)
    faulthandler.cancel_dump_traceback_later()
    say("\n".join(["failures:", *attempt.failures]) if attempt.failures else "all right")
    sys.exit(bool(attempt.failures))


if __name__ == "__main__":
    main()
