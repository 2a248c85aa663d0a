"""A loop of steps with all that belongs to it."""

from __future__ import annotations

import time
from collections.abc import Callable

from .drafting.speculator import Speculator
from .generation.loop import StepLoop
from .generation.stepping import Drafts
from .kv.slots import SlotStore
from .kv.store import KvStore
from .manifest import EngineManifest
from .runner import Runner
from .sampling.sampler import Sampler
from .text.vocabulary import TokenBytes


def step_loop(
    manifest: EngineManifest,
    runner: Runner,
    token_bytes: TokenBytes,
    *,
    store: KvStore | None = None,
    drafts: Drafts | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> StepLoop:
    """The loop that serves an engine.

    Args:
        store: of its KV memory; by default this lies in slots.
        drafts: by default all that the engine can check.
    """
    sampler, limits = Sampler(manifest.vocab_size), manifest.limits
    return StepLoop(
        manifest,
        runner,
        token_bytes,
        store=store or SlotStore(limits.max_sequences, limits.max_length),
        sampler=sampler,
        drafts=drafts or Speculator.of_engine(manifest, runner, sampler, clock),
        clock=clock,
    )
