"""Checks of the model's engine: is it there, can this machine run it, and does it fit into memory."""

from __future__ import annotations

from collections.abc import Iterator

from triune_runtime.errors import ManifestError
from triune_runtime.manifest import EngineManifest
from triune_runtime.targets import check_runnable, find_target

from .context import Context
from .finding import Finding, bad, good, poor, unknown

ASIDE = 500_000_000  # bytes of a server beside weights and KV cache: docs/doctor.md says where it was measured
_SUFFIXES = {".data", ".plan", ".onnx", ".bin", ".safetensors", ".gguf"}


def built(context: Context) -> Iterator[Finding]:
    """Whether there is an engine, and of what."""
    engine, folder = context.engine, context.engine_folder
    if folder is None:
        yield unknown("engine", "no model is named, and none is served", "name one: triune doctor --model MODEL")
    elif engine is None:
        remedy = f"{f'make engine {context.said}'.strip()}; `triune build --dry-run` says before what it needs"
        yield unknown("engine", f"not built: nothing at {context.repository}", remedy)
    elif isinstance(engine, ManifestError):
        yield bad("engine", str(engine.args[0]), engine.hint or "")
    else:
        limits = engine.limits
        found = (
            f"{engine.model}, {engine.precision} for {engine.target}; {limits.max_sequences} sequences of up to "
            f"{limits.max_length:,} tokens"
        )
        if engine.verified == "none":
            yield poor("engine", f"{found}; never verified", "make verify")
        else:
            yield good("engine", found)


def runs(context: Context) -> Iterator[Finding]:
    """What its target asks of a machine."""
    if context.manifest is None or context.engine_folder is None:
        return
    try:
        check_runnable(context.manifest, context.engine_folder)
    except ManifestError as error:
        yield bad("engine on this machine", str(error.args[0]), error.hint or "")
    else:
        yield good("engine on this machine", "it can run")


def fits(context: Context) -> Iterator[Finding]:
    """Whether weights and KV cache fit into the memory that is free: the processor's, or the GPU's that runs it."""
    if (manifest := context.manifest) is None:
        return
    target, place = find_target(manifest.target), "GPU memory" if context.wants_gpu else "memory"
    if target.generator is not None:
        yield unknown(place, f"{manifest.target} itself divides the engine among devices", "its start says what does not fit")
        return
    needed = Needs.of(context, manifest)
    if (room := _room(context)) is None:
        yield unknown(place, f"the engine needs {needed}; how much is free is not told")
        return
    found = f"the engine needs {needed}; {room / 1e9:.1f} GB can be had"
    if needed.least > room:
        yield bad(place, found, _SMALLER)
    elif needed.most > room and target.shares_memory:
        yield good(place, f"{found}: what there is is shared, and not all sequences can be long at once")
    elif needed.most > room:
        remedy = f"not all sequences can be long at once: a smaller MAX_SEQUENCES or MAX_LENGTH, or {_SMALLER}"
        yield poor(place, found, remedy)
    else:
        yield good(place, found)


_SMALLER = "a smaller PRECISION (int4), a smaller model, or more memory"


class Needs:
    """Bytes that an engine needs, as its manifest and its files say."""

    def __init__(self, weights: int, one: int, every: int) -> None:
        """
        Args:
            one, every: KV cache of one sequence of the greatest length, and of as many as are served at once.
        """
        self.weights, self.one, self.every = weights, one, every

    @classmethod
    def of(cls, context: Context, manifest: EngineManifest) -> Needs:
        one = manifest.kv_bytes(manifest.limits.max_length)
        return cls(weight_bytes(context), one, one * manifest.limits.max_sequences)

    @property
    def least(self) -> int:
        """To serve one sequence."""
        return self.weights + self.one + ASIDE

    @property
    def most(self) -> int:
        """With all sequences at their greatest length."""
        return self.weights + self.every + ASIDE

    def __str__(self) -> str:
        return f"{self.least / 1e9:.1f} GB for one sequence, {self.most / 1e9:.1f} GB for all at full length"


def weight_bytes(context: Context) -> int:
    """Bytes of the engine's files."""
    folder = context.engine_folder
    files = [] if folder is None or not folder.is_dir() else list(folder.iterdir())
    return sum(file.stat().st_size for file in files if file.is_file() and file.suffix in _SUFFIXES)


def _room(context: Context) -> int | None:
    """Bytes that an engine can have; of a server that runs, those that it has count, too. None: not known."""
    if context.wants_gpu:
        if (gpu := context.first_gpu) is None:
            return None
        return gpu.memory_bytes if context.running else gpu.free_bytes
    free = context.memory.free
    return free if free is None or context.health is None else free + context.health.memory_bytes


CHECKS = (built, runs, fits)
