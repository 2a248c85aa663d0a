"""Small engines over slots and over blocks, whose prompts share prefixes, and what they say of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune_runtime.generation.loop import StepLoop
from triune_runtime.kv.blocks import BlockStore
from triune_runtime.request import Event, Request, SamplingParams
from triune_runtime.runner import Runner, Work
from triune_runtime.sampling.sampler import Sampler
from triune_runtime.starting import step_loop
from triune_runtime.targets.fake.runner import FakeRunner

from .paged import PagedRunner
from .runtime import STOPS, TOKENS, VOCAB, chunks_of, make_manifest, run_out, text_of

CHUNK, LENGTH, BLOCK = 8, 96, 4
PROMPT = tuple(2 + n % 20 for n in range(33))
KINDS = ("slots", "blocks")


class Counting(FakeRunner):
    """Counts the tokens that it runs; fails, or has no numbers, when it is told to."""

    def __init__(self) -> None:
        super().__init__(VOCAB, STOPS)
        self.computed, self.fails, self.poisoned = 0, False, False

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        if self.fails:
            raise RuntimeError("the engine has stumbled")
        self.computed += sum(len(item.tokens) for item in work)
        logits = super().run(work)
        return np.full_like(logits, np.nan) if self.poisoned else logits


class Failing(PagedRunner):
    """The same over blocks."""

    fails = poisoned = False

    def launch(self, *args: Any, **more: Any) -> Any:
        if self.fails:
            raise RuntimeError("the engine has stumbled")
        flight = super().launch(*args, **more)
        if self.poisoned:
            made = flight.collect()
            assert made.best is not None
            made.best.logits[:] = np.nan
            made.logits[:] = np.nan
            flight.collected = False  # type: ignore[attr-defined]
        return flight


def make(kind: str, *, depth: int = 0, slots: int = 4, blocks: int = 60, caching: bool = True, **limits: int) -> StepLoop:
    manifest = make_manifest(
        **({"max_sequences": slots, "max_length": LENGTH, "prefill_chunk": CHUNK, "max_queue": 99} | limits)
    )
    if kind == "slots":
        return step_loop(manifest, Counting(), TOKENS, prefix_caching=caching, clock=lambda: 0.0)
    store, runner = BlockStore(slots, blocks, BLOCK), Failing(VOCAB, blocks, BLOCK, STOPS, depth=depth)
    store.shares = caching
    return StepLoop(manifest, runner, TOKENS, store=store, sampler=Sampler(VOCAB), clock=lambda: 0.0)


def request(key: int, prompt: tuple[int, ...] = PROMPT, tokens: int = 6, salt: str = "", **params: Any) -> Request:
    wanted = SamplingParams(**({"max_tokens": tokens, "ignore_eos": True} | params))
    return Request(key=key, prompt=prompt, params=wanted, cache_salt=salt)


def serve(loop: StepLoop, *requests: Request) -> list[Event]:
    for one in requests:
        loop.submit(one)
    return run_out(loop)


def computed(loop: StepLoop) -> int:
    runner: Runner = loop.runner
    assert isinstance(runner, (Counting, Failing))
    return runner.computed


def answer(events: Sequence[Event], key: int) -> tuple[str, int]:
    chunks = chunks_of(events, key)
    return text_of(chunks), chunks[0].kv.reused_tokens


def hits(loop: StepLoop) -> dict[str, float]:
    return {u.family: u.value for u in loop.metrics.drain() if u.family.startswith("vllm:prefix_cache")}
