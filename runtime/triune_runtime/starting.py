"""A loop of steps with all that belongs to it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

from .drafting.speculator import Speculator
from .generation.generator import Generator
from .generation.loop import StepLoop
from .generation.stepping import Drafts
from .generation.waiting import FairShare
from .kv.store import KvStore
from .manifest import EngineManifest
from .runner import Runner
from .sampling.sampler import Sampler
from .targets import check_runnable, find_target, make_runner
from .targets.target import Hosting
from .text.vocabulary import TokenBytes


def generator_of(
    manifest: EngineManifest,
    folder: Path,
    token_bytes: TokenBytes,
    *,
    prefix_caching: bool = True,
    client_sequences: int | None = None,
) -> Generator:
    """What serves the engine in `folder`: its target's own generator, or a loop of steps of its runner.

    Args:
        prefix_caching, client_sequences: see `step_loop`.

    Raises:
        ManifestError: it cannot be loaded.
    """
    if (make := find_target(manifest.target).generator) is None:
        runner = make_runner(manifest, folder)
        return step_loop(manifest, runner, token_bytes, prefix_caching=prefix_caching, client_sequences=client_sequences)
    check_runnable(manifest, folder)
    hosting = Hosting(
        manifest=manifest, folder=folder, token_bytes=token_bytes, prefix_caching=prefix_caching,
        client_sequences=client_sequences,
    )  # fmt: skip
    return cast(Generator, make(hosting))  # whose type a target cannot name: it stands above


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
