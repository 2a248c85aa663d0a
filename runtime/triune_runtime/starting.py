"""A loop of steps with all that belongs to it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from .drafting.speculator import Speculator
from .generation.loop import StepLoop
from .generation.stepping import Drafts
from .generation.waiting import FairShare
from .kv.store import KvStore
from .manifest import EngineManifest
from .runner import Runner
from .sampling.sampler import Sampler
from .targets import find_target
from .text.vocabulary import TokenBytes


def step_loop(
    manifest: EngineManifest,
    runner: Runner,
    token_bytes: TokenBytes,
    *,
    store: KvStore | None = None,
    prefix_caching: bool = True,
    client_sequences: int | None = None,
    drafts: Drafts | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> StepLoop:
    """The loop that serves an engine.

    Args:
        store: of its KV memory; by default its target's.
        prefix_caching: whether prompts find what others have computed, where the store can tell them.
        client_sequences: how many of one client may run at once, where clients get fair shares; 0: three quarters of the slots;
            None: there are no shares, who comes first is served first.
        drafts: by default all that the engine can check.
    """
    sampler, store = Sampler(manifest.vocab_size), store or find_target(manifest.target).store(manifest, runner)
    store.shares = store.shares and prefix_caching
    shares = None if client_sequences is None else FairShare.of(store.slots, manifest.limits.max_queue, client_sequences)
    return StepLoop(
        manifest,
        runner,
        token_bytes,
        store=store,
        sampler=sampler,
        fair=shares,
        drafts=drafts or Speculator.of_engine(manifest, runner, sampler, clock),
        clock=clock,
    )


def keep_loaded() -> None:
    """Let the garbage collector pass over all that is there: it stays as long as the process, and to look at it takes tens of
    milliseconds in the middle of a step. Call it once, when everything is loaded."""
    gc.collect()
    gc.freeze()
