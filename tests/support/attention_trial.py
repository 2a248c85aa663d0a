"""Attention in the fused decode kernel on a real GPU: eight-bit caches beside PyTorch, then what attention adds to a step.

    PYTHONPATH=runtime:tests python -m support.attention_trial

Ends itself after 85 s; takes about 40 on 16 processors, most of it for compiling.
"""

from __future__ import annotations

import dataclasses
import faulthandler

import torch

from support.fused_trial import BASE, LIMIT_S, QWEN3, TINY, Trial, Wanted, compile_in_background, say
from support.torch_decoder import Inputs, Weights
from triune_runtime.targets.cuda.fused.shape import DecoderShape, cut

CONTEXTS = (32, 512, 2000, 8000)
ALL = 0x1F  # phases
# Other cuts, at batch and contexts: who merges how many splits, and how many tiles a warp takes before there are more splits.
CHANGES = {
    1: (("DIRECT", 1), ("DIRECT", 4), ("DIRECT", 16), ("ROUNDS", 1), ("ROUNDS", 4)),
    8: (("DIRECT", 2), ("DIRECT", 4), ("ROUNDS", 1), ("ROUNDS", 4)),
}


def in_eight_bits(shape: DecoderShape) -> DecoderShape:
    return dataclasses.replace(shape, fp8_cache=True)


def timings(trial: Trial, shape: DecoderShape, title: str) -> None:
    weights = Weights(shape, 8 * (max(CONTEXTS) // shape.block_tokens + 1))
    layers = shape.layers
    for batch in (1, 8):
        inputs = {context: Inputs(shape, [context] * batch) for context in CONTEXTS}
        without = trial.time_us(Wanted(shape, batch, ALL, False), weights, inputs[512])
        say(f"{title}, batch {batch}, all but attention: {without:.1f} us")
        for context, its in inputs.items():
            us = trial.time_us(Wanted(shape, batch), weights, its)
            adds = us - without
            say(f"{title}, batch {batch}, context {context}: {us:.1f} us, attention {adds:.1f}, a layer {adds / layers:.2f}")
        for change in CHANGES[batch] if not shape.fp8_cache else ():
            wanted = Wanted(shape, batch, instead=(change,))
            short, long = (trial.time_us(wanted, weights, inputs[context]) for context in (512, 2000))
            say(f"{title}, batch {batch}, {change[0]} {change[1]}: {short:.1f} us at 512, {long:.1f} at 2000")


def main() -> None:
    faulthandler.dump_traceback_later(LIMIT_S, exit=True)
    trial = Trial()
    say(torch.cuda.get_device_name(), trial.gpu)
    shapes = {"bf16": BASE, "bf16, fp8 cache": in_eight_bits(BASE)}
    checks = [
        (in_eight_bits(TINY), [300], "tiny qwen2, fp8 cache"),
        (in_eight_bits(QWEN3), [0, 700, 31, 32, 64, 1, 255, 100], "tiny qwen3, fp8 cache"),
        (TINY, [8000], "tiny qwen2"), (TINY, [2000, 513], "tiny qwen2"), (TINY, [129, 8000, 0, 600], "tiny qwen2"),
    ]  # fmt: skip
    wanted = [Wanted(shape, len(lengths)) for shape, lengths, _ in checks]
    for shape in shapes.values():
        wanted += [Wanted(shape, batch, ALL, attention) for batch in (1, 8) for attention in (True, False)]
    wanted += [Wanted(BASE, batch, instead=(change,)) for batch, changes in CHANGES.items() for change in changes]
    for w in wanted:
        work = cut(w.shape, w.batch, trial.gpu)
        assert work is not None and dict(w.instead).get("DIRECT", 1) <= int(work.constants["SPLITS"]), w
    trial.cubins = compile_in_background(wanted, trial.gpu)
    for check in checks:
        trial.right(*check)
    for title, shape in shapes.items():
        torch.cuda.empty_cache()
        timings(trial, shape, title)
    faulthandler.cancel_dump_traceback_later()
    assert not trial.failures, trial.failures
    say("all right")


if __name__ == "__main__":
    main()
