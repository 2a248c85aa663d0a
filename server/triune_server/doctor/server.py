"""Checks of a server that runs: is it well, does it use what it was built for, and why is it slow."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from triune_runtime.errors import ManifestError
from triune_runtime.manifest import EngineManifest
from triune_runtime.targets import TARGETS, find_target

from ..draining_file import stalled_file
from ..errors import ServerError
from ..stack import find_stack
from ..view import ENGINE_FOLDER, View
from .context import Context
from .finding import Finding, bad, good, poor, unknown
from .steps import slow
from .watching import cores_of, engines_of, family_of

_UNUSED = 0.99  # of a GPU's memory that is free where no engine is: its context alone takes more than the rest


def runs(context: Context) -> Iterator[Finding]:
    """Whether there is one, and whether it is well."""
    running, health = context.running, context.health
    if running is None or health is None:
        if find_stack(context.run_folder) is not None:
            yield unknown(
                "server", "it runs in containers", "look at it there: docker exec CONTAINER triune doctor --only server"
            )
        else:
            yield unknown("server", f"none runs in {context.run_folder}", "start it with `make up` to have it looked at")
        return
    found = f"{running.model}, pid {running.pid}, {health.memory_bytes / 1e6:,.0f} MB"
    if running.waiting:
        yield bad("server", f"{found}; it waits before it starts again: {running.reason}", "`make logs` says why")
    elif not health.ready:
        yield bad("server", f"{found}; it is not ready", "`make logs` says why")
    elif running.restarts:
        yield poor("server", f"{found}; died {running.restarts} times: {running.reason}", "`make logs` says why")
    else:
        yield good("server", f"{found}; ready")
    if (stalled := stalled_file(context.run_folder)).exists():
        yield bad(
            "sign of life",
            f"it hangs: {stalled.read_text('utf-8').strip()}",
            "it is started again by itself in 30 s; `make logs`",
        )


def devices(context: Context) -> Iterator[Finding]:
    """Whether engines run on what they were built for."""
    if context.running is None:
        return
    for name, process in engines_of(context.running.pid).items():
        target = _target(context, name)
        if target not in TARGETS or not find_target(target).libraries:
            continue
        pids = family_of(process)
        maps = "".join(context.read(f"proc/{pid}/maps") for pid in pids)
        yield device(name, target, maps, gpu_holds(context, pids), gpus=len(context.gpus))


def device(name: str, target: str, maps: str, holds: bool | None, *, gpus: int) -> Finding:
    """What one engine runs on.

    Args:
        maps: what its processes have mapped, as the kernel says it; empty: not to be read.
        holds: whether the driver says that one of them uses a GPU; None: it does not know of it.
    """
    subject, row = f"device of {name}", find_target(target)
    if not maps:
        return unknown(subject, "what its process uses is not to be seen", "ask as the user who started the server")
    loaded = [part for part in row.libraries if part in maps]
    if row.gpu == "unused":
        if gpus:
            return poor(
                subject, f"the CPU, beside {gpus} GPUs that are not used", "make up TARGET=cuda SWITCH=1, or TARGET=tensorrt"
            )
        return good(subject, "the CPU, with ONNX Runtime" if loaded else "the CPU")
    if not loaded:
        wanted = " or ".join(row.libraries)
        return bad(
            subject,
            f"built for {target}, and none of {wanted} is in its memory: it is not used",
            "`make logs`, then make verify",
        )
    if holds is False:
        return bad(
            subject,
            f"has {', '.join(loaded)} in memory, and the driver knows of no use of a GPU",
            "`make logs`, then make verify",
        )
    return good(subject, f"{target} is used: {', '.join(loaded)}" + (", and a GPU" if holds else ""))


def gpu_holds(context: Context, pids: Collection[int]) -> bool | None:
    """Whether the driver says that one of these processes uses a GPU. In a container it names none, or names them as the
    machine does: so that nobody uses one is believed only where its memory is free."""
    known = [gpu.processes for gpu in context.gpus if gpu.processes is not None]
    if any(not processes.isdisjoint(pids) for processes in known):
        return True
    unused = [(gpu.free_bytes or 0) > _UNUSED * (gpu.memory_bytes or 0) > 0 for gpu in context.gpus]
    return False if unused and all(unused) else None


def _target(context: Context, name: str) -> str:
    """Of the engine of one of Triton's models."""
    served = View(context.run_folder).served()
    owner = name.rpartition("__")[0]
    repository = served[owner].repository if owner in served else next((one.repository for one in served.values()), None)
    try:
        return EngineManifest.load((repository or context.repository or Path()) / ENGINE_FOLDER).target
    except ManifestError:  # it is gone from the disk; what runs is not touched by that
        return ""


def slowness(context: Context) -> Iterator[Finding]:
    """Why it is slow: its steps are recorded for some seconds."""
    if context.running is None:
        return
    try:
        observed = context.observed
    except ServerError as error:
        yield unknown("steps", str(error.args[0]), error.hint or "")
        return
    if observed is not None:
        first = context.first_gpu
        yield from slow(observed, cores=len(cores_of(context.running.pid)), gpu=first.index if first else 0)


CHECKS = (runs, devices, slowness)
