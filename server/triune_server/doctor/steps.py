"""Why a server is slow, of what was seen of it: where steps' time goes, who waits, what is full, what holds it back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .finding import Finding, good, poor, unknown
from .gpus import clocks
from .nvml import SLOWED
from .observing import Observed
from .recording import Record
from .watching import Sample
from .where import Where

# Counters of the runtime.
REFUSED, LATE = "triune_requests_refused_total:overloaded", "triune_requests_aborted_total:deadline"
_IDLE = 0.9  # of the time: from there on nothing can be said
_MUCH_SAMPLING, _MUCH_REST = 0.25, 0.35
_FULL_KV, _OFTEN = 0.95, 0.2
_HOST_BOUND = 0.6  # of a GPU's time that it must compute while steps run
_TAKEN = 0.25  # of the cores, by others
_WHOLE = 0.9  # of a core, that a process takes


def slow(seen: Observed, *, cores: int, gpu: int = 0) -> Iterator[Finding]:
    """All findings.

    Args:
        cores: that the server may use.
        gpu: the index of the one that runs engines, where the driver does not say which process uses which.
    """
    if seen.silent:
        remedy = "`make logs` and `make status` say whether they hang; a later start (`make up SWITCH=1`) mends that"
        yield unknown("steps", f"{seen.silent} of {seen.silent + len(seen.records)} engines have recorded nothing", remedy)
    if all(one.idle > _IDLE for one in seen.engines.values()):
        yield unknown(
            "steps",
            f"idle: next to nothing was asked of it in {seen.seconds:.1f} s",
            "look again under load: make load, or your clients",
        )
    for record in seen.records:
        engine = seen.engines[record.model]
        if engine.idle <= _IDLE:
            yield _steps(record.model, engine)
            yield from _gpu(record, engine, seen.samples, gpu)
            yield _queue(record.model, engine, record.slots)
            yield _kv(record.model, engine)
    yield from _refused(seen)
    yield from _processes(seen.samples, cores)
    for slowed in {gpu.index: gpu for one in seen.samples for gpu in one.gpus if (gpu.slowed or 0) & sum(SLOWED)}.values():
        yield clocks(slowed)


def _steps(model: str, one: Where) -> Finding:
    parts = sorted(one.parts, key=lambda part: -one.parts[part])
    told = ", ".join(f"{part} {one.share(part):.0%}" for part in parts if one.share(part) >= 0.01)
    rate, took_ms = one.steps / one.span_s, one.busy_s / one.steps * 1e3
    found = f"{rate:.0f} steps a second, {took_ms:.1f} ms each: {told}; {one.decoding:.1f} sequences together"
    subject, host = f"steps of {model}", one.share("plan", "commit", "text", "rest", "draft")
    if one.share("sample") > _MUCH_SAMPLING:
        remedy = (
            "log probabilities, penalties, logit_bias, min_p, grammars or a top_k that is off make it so costly: ask for "
            "fewer of them; on a GPU greedy, temperature, top_k and top_p are chosen there"
        )
        return poor(subject, f"{found}; choosing tokens on the CPU holds it up", remedy)
    if host > _MUCH_REST:
        remedy = "a faster core for the engine's process; fewer streams with few tokens each"
        return poor(subject, f"{found}; what is around the model takes {host:.0%}", remedy)
    return good(subject, found)


def _gpu(record: Record, one: Where, samples: Sequence[Sample], index: int) -> Iterator[Finding]:
    """Whether the GPU that runs it computes while steps run."""
    every = [gpu for sample in samples for gpu in sample.gpus]
    own = [gpu for gpu in every if record.pid in (gpu.processes or ())] or [gpu for gpu in every if gpu.index == index]
    busy = [gpu.busy for gpu in own if gpu.busy is not None]
    if not busy:
        return
    subject, mean = f"GPU of {record.model}", sum(busy) / len(busy)
    found = f"computes {mean:.0%} of the time, steps take {1 - one.idle:.0%} of it"
    remedy = "the host holds it up: more requests at once, faster or less busy cores; `triune profile` shows what it waits for"
    yield poor(subject, found, remedy) if mean < _HOST_BOUND * (1 - one.idle) else good(subject, found)


def _queue(model: str, one: Where, slots: int) -> Finding:
    subject, found = (
        f"queue of {model}",
        f"{one.waiting:.1f} requests waited on average, {one.decoding:.1f} of {slots} places were in use",
    )
    if one.full <= _OFTEN:
        return good(subject, found)
    if one.decoding >= slots * 0.8:
        return poor(
            subject,
            found,
            "a larger MAX_SEQUENCES if memory allows, or a further replica; `triune load --search` finds what one can serve",
        )
    return poor(
        subject,
        found,
        "long prompts are computed first, or KV memory is full: a shorter MAX_LENGTH, prefix caching, a further replica",
    )


def _kv(model: str, one: Where) -> Finding:
    subject, found = f"KV cache of {model}", f"{one.kv_share:.0%} in use at most"
    if one.kv_share >= _FULL_KV and one.full > _OFTEN:
        return poor(
            subject,
            f"{found}, and requests wait",
            "KV in eight bits (CUDA), a smaller MAX_LENGTH, more memory, or a further replica",
        )
    return good(subject, found)


def _refused(seen: Observed) -> Iterator[Finding]:
    refused = seen.counts.get(REFUSED, 0.0)
    if refused:
        yield poor(
            "refused requests", f"{refused:.0f} in {seen.seconds:.1f} s for want of room", "a further replica; docs/overload.md"
        )
    late = seen.counts.get(LATE, 0.0)
    if late:
        yield poor(
            "missed deadlines",
            f"{late:.0f} in {seen.seconds:.1f} s",
            "longer deadlines, fewer requests at once, or a further replica",
        )


def _processes(samples: Sequence[Sample], cores: int) -> Iterator[Finding]:
    if not samples:
        return
    names = {name for one in samples for name in one.cores}
    mean = {name: sum(one.cores.get(name, 0.0) for one in samples) / len(samples) for name in names}
    others = sum(one.others for one in samples) / len(samples)
    own = sum(mean.values())
    told = ", ".join(f"{name} {mean[name]:.1f}" for name in sorted(mean, key=lambda name: -mean[name]) if mean[name] >= 0.05)
    found = f"{own:.1f} of {cores} cores in use ({told or 'none'}), {others:.1f} by others"
    asked = {
        name: used
        for name, used in mean.items()
        if used >= _WHOLE and name.rpartition("__")[2] in ("front", "gateway", "tritonserver")
    }
    if others > cores * _TAKEN and own + others > cores * 0.8:
        yield poor("processor", found, "end other programs, or give the server cores of its own")
    elif asked:
        busiest = max(asked, key=lambda name: asked[name])
        remedy = "fewer, larger chunks (chunks_per_s); gRPC in place of OpenAI's API; a gateway of its own: docs/openai.md"
        yield poor("processor", f"{found}; {busiest} is at its limit", remedy)
    else:
        yield good("processor", found)
