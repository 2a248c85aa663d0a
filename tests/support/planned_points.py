"""What `triune plan` says beside every speed that was measured on a GPU (docs/cuda-log.md), as the tables of docs/planning.md.

Run: PYTHONPATH=tests python -m support.planned_points
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fakes.planned import planned
from triune_builder.planning.calibration import TRIUNE, VLLM, Engine
from triune_builder.planning.choosing import Load, speed
from triune_builder.planning.replica import Limits
from triune_builder.planning.roofline import Roofline
from triune_builder.planning.simulate import Outcome, pace_of, simulate
from triune_builder.planning.traffic import Traffic

SMALL, LARGE = "r1-distill-qwen-1.5b", "r1-distill-qwen-7b"
UNFUSED = replace(TRIUNE, name="triune, without the fused kernel", fused_layer=None)
BATCHES = (1, 8, 64, 256)
CLOSE = 0.2
_NAMES = {SMALL: "1.5B", LARGE: "7B"}
Figures = tuple[float | None, ...]
_NONE: Figures = (None,) * len(BATCHES)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One call that measured batches of 512 tokens in and 128 out, and a prompt of 2,048 tokens; None: not measured."""

    shape: str
    gpu: str
    engine: Engine
    note: str = ""
    choices: dict[str, Any] = field(default_factory=dict, hash=False)  # of the plan: its precision, its KV type
    rates: Figures = _NONE  # tokens/s at `BATCHES`
    gaps: Figures = _NONE  # ms between tokens
    prompt: float | None = None  # ms
    fitted: frozenset[str] = frozenset()  # columns that constants were fitted to

    @property
    def roofline(self) -> Roofline:
        return Roofline(planned(self.shape, self.gpu, **self.choices), self.engine)

    @property
    def name(self) -> str:
        kinds = [self.choices.get("precision", "bf16")] + (["KV fp8"] if "kv_dtype" in self.choices else [])
        return f"{_NAMES[self.shape]} {', '.join(kinds)}, {self.gpu}, {self.note or self.engine.name}"

    def cells(self) -> Iterator[tuple[str, float, float]]:
        """Column, planned, measured."""
        line = self.roofline
        speeds = [speed(line, batch, Load(sequences=batch, prompt=512, output=128)) for batch in BATCHES]
        for batch, one, rate in zip(BATCHES, speeds, self.rates, strict=True):
            if rate is not None:
                yield f"rate {batch}", one.overall, rate
        for batch, one, gap in zip(BATCHES, speeds, self.gaps, strict=True):
            if gap is not None:
                yield f"gap {batch}", one.between * 1e3, gap
        if self.prompt is not None:
            yield "prompt", line.prefill(2048) * 1e3, self.prompt


_EVERY = frozenset([*(f"{kind} {batch}" for kind in ("rate", "gap") for batch in BATCHES), "prompt"])
_INT4, _FP8KV = {"precision": "int4"}, {"kv_dtype": "fp8"}
RUNS = (
    Run(shape=SMALL, gpu="h200", engine=TRIUNE, rates=(861, 5320, 18323, 29418), gaps=(1.13, 1.36, 2.28, 3.78), prompt=12.9,
        fitted=_EVERY),
    Run(shape=SMALL, gpu="h200", engine=TRIUNE, note="triune, another call", rates=(871, 5284, 18096, 29372),
        gaps=(None, None, None, 3.81), prompt=12.7),
    Run(shape=SMALL, gpu="h200", engine=TRIUNE, note="triune, a third", rates=(883, 5315, 18119, 28554), prompt=12.7),
    Run(shape=SMALL, gpu="h200", engine=UNFUSED, rates=(514, 3781, 18095, 22418), prompt=13.2),
    Run(shape=SMALL, gpu="h200", engine=TRIUNE, choices=_FP8KV, rates=(864, 5274, 17001, 28187),
        gaps=(None, None, None, 3.99), prompt=13.9),
    Run(shape=SMALL, gpu="h200", engine=TRIUNE, choices=_INT4, rates=(1120, 6445, 13581, 24400),
        gaps=(None, None, None, 5.11), prompt=13.7),
    Run(shape=SMALL, gpu="h200", engine=VLLM, rates=(491, 3448, 14025, 22370), gaps=(1.97, 1.98, 3.31, 6.17), prompt=12.8,
        fitted=_EVERY - {"prompt"}),
    Run(shape=SMALL, gpu="h200", engine=VLLM, note="vllm, two processes", rates=(None, None, 13907, 20573),
        gaps=(None, None, 3.19, 7.92), prompt=26.6),
    Run(shape=LARGE, gpu="h200", engine=TRIUNE, rates=(260, None, 5951, None), gaps=(3.78, None, 5.34, None), prompt=48.0,
        fitted=frozenset({"rate 1", "gap 1", "prompt"})),
    Run(shape=LARGE, gpu="h200", engine=TRIUNE, choices=_INT4, rates=(471, None, 3929, None), gaps=(2.0, None, 10.6, None),
        prompt=52.0, fitted=frozenset({"rate 1", "gap 1"})),
    Run(shape=LARGE, gpu="h200", engine=VLLM, rates=(203, None, 5861, None), gaps=(4.79, None, 5.57, None), prompt=47.0),
    Run(shape=LARGE, gpu="h200", engine=VLLM, note="vllm, two processes", rates=(203, None, 5898, None),
        gaps=(4.79, None, 5.58, None), prompt=49.0),
    Run(shape=SMALL, gpu="h100", engine=TRIUNE, rates=(655, 3942, 14138, 21745), gaps=(1.49, 1.83, 2.87, 4.93), prompt=16.9),
    Run(shape=SMALL, gpu="h100", engine=UNFUSED, rates=(439, 3082, 14026, 21402), gaps=(2.24, 2.39, 2.87, 5.15), prompt=16.8),
    Run(shape=SMALL, gpu="h100", engine=VLLM, rates=(437, 3193, 12478, 23186), gaps=(2.25, 2.36, 2.82, 6.41), prompt=14.3),
    Run(shape=SMALL, gpu="h100", engine=VLLM, note="vllm, two processes", rates=(426, 2940, 11832, 23685),
        gaps=(2.24, 2.36, 2.79, 9.08), prompt=32.5),
    Run(shape=SMALL, gpu="h100", engine=UNFUSED, note="ONNX Runtime's own ops", gaps=(2.18, 2.27, 2.82, 4.79), prompt=16.3),
)  # fmt: skip


def simulated(roofline: Roofline, traffic: Traffic) -> Outcome:
    """A load on one of our engines of 256 sequences, 8,192 prompt tokens a step."""
    limits = Limits(sequences=256, step_tokens=8192, chunk=8192, kv_tokens=roofline.plan.fullest.tokens)
    return simulate(traffic, 1, pace_of(roofline, limits), limits)


def mixed() -> Traffic:
    """The mixed load of `python -m bench.gpu`."""
    chance = random.Random(5)
    lengths = [(chance.randint(50, 1500), chance.randint(20, 200)) for _ in range(200)]
    prompts, answers = (np.array(column, np.int64) for column in zip(*lengths, strict=True))
    return Traffic(np.arange(200) * 0.01, prompts, answers)


def crowd(count: int) -> Traffic:
    """Prompts of `python -m bench.prefix`, all at once, nothing of them kept."""
    return Traffic(np.zeros(count), np.full(count, 1524), np.full(count, 8))


def others() -> Iterator[tuple[str, float, float]]:
    """What, planned, measured; to the first of them a constant was fitted."""
    line = {name: Roofline(planned(SMALL, name), TRIUNE) for name in ("h200", "h100")}
    unfused = {name: Roofline(planned(SMALL, name), UNFUSED) for name in ("h200", "h100")}
    fp8 = Roofline(planned(SMALL, kv_dtype="fp8"), TRIUNE)
    sixteen, first = Load(sequences=16, prompt=512, output=128), "ms to the first token, 1.5B bf16, h200"
    prompts = "ms between tokens, 256 sequences behind prompts of 3,500, 1.5B bf16"
    yield f"{prompts}, KV fp8, h200", fp8.decode(256, 3564) * 1e3, 8.16
    yield f"{prompts}, h200", line["h200"].decode(256, 3564) * 1e3, 8.71
    yield "tokens/s, 16 sequences, 1.5B bf16, h200", speed(line["h200"], 16, sixteen).overall, 6902
    yield "the same without the fused kernel", speed(unfused["h200"], 16, sixteen).overall, 6928
    for rate in (26004, 22012):
        found = speed(line["h100"], 256, Load(sequences=256, prompt=512, output=128)).overall
        yield "tokens/s, 256 sequences, 1.5B bf16, h100, a later call", found, rate
    yield f"{first}, a prompt of 1,524 alone", line["h200"].prefill(1524) * 1e3, 9.5
    yield (
        f"{first}, 64 of them at once (simulated)",
        simulated(line["h200"], crowd(64)).latencies["first_token"][0] * 1e3,
        268.9,
    )
    yield "ms, 8 prompts of 512, h100, ONNX Runtime's own ops", unfused["h100"].step(0, 0, 4096, 8 * 512**2 / 2) * 1e3, 28.5
    for name, rate in (("h200", 9172), ("h100", 8400)):
        yield f"tokens/s, the mixed load, 1.5B bf16, {name} (simulated)", simulated(line[name], mixed()).tokens_per_s, rate
    yield "the same on an h200 without the fused kernel", simulated(unfused["h200"], mixed()).tokens_per_s, 8789


def shown(planned: float, measured: float, *, fitted: bool = False) -> str:
    """`planned / measured = ratio`; a star: fitted to it, bold: more than a fifth off."""
    ratio = planned / measured
    digits = 0 if measured >= 100 else 1 if measured >= 20 else 2
    said = f"{planned:,.{digits}f} / {measured:,.{digits}f} = {ratio:.2f}{'*' if fitted else ''}"
    return said if abs(ratio - 1) <= CLOSE else f"**{said}**"


def tables() -> list[str]:
    """The lines of both tables."""
    columns = [f"{what} at {batch}" for what in ("tokens/s", "ms between tokens") for batch in BATCHES]
    lines = [f"| | {' | '.join(columns)} | prompt of 2,048, ms |", "|---|" + "--:|" * (len(columns) + 1)]
    for run in RUNS:
        found = {column: shown(a, b, fitted=column in run.fitted) for column, a, b in run.cells()}
        keys = [*(f"{kind} {batch}" for kind in ("rate", "gap") for batch in BATCHES), "prompt"]
        lines.append(f"| {run.name} | {' | '.join(found.get(key, '') for key in keys)} |")
    lines += ["", "| | plan / measured |", "|---|--:|"]
    lines += [f"| {what} | {shown(a, b, fitted=not number)} |" for number, (what, a, b) in enumerate(others())]
    return lines


if __name__ == "__main__":
    print("\n".join(tables()))
