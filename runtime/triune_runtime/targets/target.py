"""What the runtime must know of a target to run its engines. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # of which the last imports NumPy
    from threading import Event

    from ..kv.store import KvStore
    from ..machine import Machine
    from ..manifest import EngineManifest
    from ..runner import Runner
    from ..text.vocabulary import TokenBytes


def slots(manifest: EngineManifest, runner: Runner) -> KvStore:
    """A slot for each sequence, which shares nothing."""
    from ..kv.slots import SlotStore  # with what it imports

    return SlotStore(manifest.limits.max_sequences, manifest.limits.max_length)


@dataclass(frozen=True, kw_only=True)
class Target:
    """One target: the TARGET of its folder."""

    check: Callable[[EngineManifest, Path, Machine | None], None]
    """Raise ManifestError if the engine of a manifest in a folder cannot run on a machine; None: on this one.

    Loads nothing of the engine, and imports no package that only a machine which can run it has.
    """

    runner: Callable[[EngineManifest, Path], Runner]
    """The runner of an engine that `check` accepts, loaded; raises ManifestError if it cannot be, or has none."""

    device: Callable[[Machine], str]
    """What of a machine runs the engines, for people; raises ManifestError if it has no such thing."""

    bit_exact: bool
    """Whether a sequence's logits are the same bits whatever else is in the run."""

    store: Callable[[EngineManifest, Runner], KvStore] = slots
    """The books of the KV memory of a loaded runner."""

    generator: Callable[[Hosting], object] | None = None
    """A `generation.generator.Generator` that serves an engine which `check` accepts, where its tokens come from elsewhere: the
    target has no runner then. Raises ManifestError if it cannot be."""

    join: Callable[[Path, str, int, Event, Event, Mapping[str, str]], None] | None = None
    """Do a further machine's part of an engine that several serve: its folder, the first machine's address, this one's rank, an
    event that ends it at once, one that ends it as soon as the first machine has ended its own, the environment of what it
    starts. Raises ManifestError if that cannot be. None: its engines run on one machine."""

    contained: bool = True
    """Whether the project's images have what runs its engines."""

    start_s: float = 120.0
    """Seconds that an engine may take to be loaded."""

    gpu: Literal["unused", "needed", "welcome"] = "unused"
    """Whether its engines run on GPUs: none does, each does, or each where there are some."""

    libraries: tuple[str, ...] = ()
    """Parts of the names of libraries, of which an engine's process, or one that it has started, has some in memory when it
    really runs there; empty: it needs none."""

    shares_memory: bool = False
    """Whether sequences share the KV memory that there is, so that not all can be long at once."""


@dataclass(frozen=True, kw_only=True)
class Hosting:
    """What a generator is made of, where a target makes its own; see `starting.step_loop`."""

    manifest: EngineManifest
    folder: Path
    token_bytes: TokenBytes
    prefix_caching: bool
    client_sequences: int | None
