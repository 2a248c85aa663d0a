"""A vocabulary whose tokens split characters, small engines over the fake runner, and answers put together again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from triune_runtime.generation.loop import StepLoop
from triune_runtime.generation.scheduler import Scheduler
from triune_runtime.kv.slots import SlotStore
from triune_runtime.manifest import EngineManifest, Limits
from triune_runtime.request import Chunk, Event, Request
from triune_runtime.runner import Runner, Work
from triune_runtime.starting import step_loop
from triune_runtime.targets.fake.runner import FakeRunner
from triune_runtime.text.vocabulary import TokenBytes

STOPS = (0, 1)
_WORDS = [b"", b"", b"", b"a", b"b", b" ab", b"c", b"\n", "é".encode(), "你".encode(), "好".encode(), "😀".encode()]
_PARTS = [bytes([b]) for word in ("é", "你", "😀") for b in word.encode()] + [b"\xff"]
TOKENS = TokenBytes(_WORDS + _PARTS)
VOCAB = len(TOKENS)


def make_manifest(stops: tuple[int, ...] = STOPS, **limits: int) -> EngineManifest:
    return EngineManifest(
        model="fake",
        architecture="fake",
        target="fake",
        precision="fake",
        engine="",
        vocab_size=VOCAB,
        cache=(),
        stop_token_ids=stops,
        limits=Limits(**limits),
    )


def scheduler_of(limits: Limits) -> Scheduler:
    return Scheduler(limits, SlotStore(limits.max_sequences, limits.max_length))


def make_engine(
    runner: Runner | None = None, *, clock: Callable[[], float] = lambda: 0.0, stops: tuple[int, ...] = STOPS, **limits: int
) -> StepLoop:
    return step_loop(make_manifest(stops, **limits), runner or FakeRunner(VOCAB, stops), TOKENS, clock=clock)


def text_of(chunks: Iterable[Chunk]) -> str:
    """The chunks decoded one by one, as a client sees them."""
    cuts = [chunk.cut for chunk in chunks]
    return "".join(TOKENS.join(c.token_ids)[c.byte_start : c.byte_stop].decode("utf-8", "replace") for c in cuts)


def run_alone(request: Request, **limits: Any) -> list[Chunk]:
    """The chunks of a request that has an engine for itself."""
    engine = make_engine(**limits)
    engine.submit(request)
    return chunks_of(run_out(engine), request.key)


def run_out(engine: StepLoop, most: int = 100_000) -> list[Event]:
    """Step until there is nothing left to do."""
    events: list[Event] = []
    while engine.has_work:
        most -= 1
        assert most, "the engine does not come to an end"
        events += engine.step()
        engine.scheduler.check()
    return events


def chunks_of(events: Iterable[Event], key: int) -> list[Chunk]:
    return [e.item for e in events if e.key == key and isinstance(e.item, Chunk)]


def plain_greedy(prompt: Sequence[int], count: int, chunk: int) -> list[int]:
    """The best tokens one after the other, from a runner used by hand."""
    runner, tokens, start = FakeRunner(VOCAB, STOPS), list(prompt), 0
    while len(tokens) < len(prompt) + count:
        logits = None
        while start < len(tokens):
            stop = min(start + chunk, len(tokens))
            logits = runner.run([Work(3, start, tuple(tokens[start:stop]))])
            start = stop
        assert logits is not None
        tokens.append(int(np.argmax(logits[0])))
        if tokens[-1] in STOPS:
            break
    return tokens[len(prompt) :]
