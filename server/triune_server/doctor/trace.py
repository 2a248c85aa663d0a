"""A recorded server as chrome-trace JSON, which chrome://tracing and ui.perfetto.dev open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from triune_runtime.recorded import COUNTS, REQUEST, STEP

from .recording import Record
from .watching import Sample

_STEPS, _PARTS = 1, 2  # rows of an engine
_MACHINE = 0  # the process under which counters of the machine stand


def chrome(records: Sequence[Record], samples: Sequence[Sample]) -> dict[str, Any]:
    """The trace. Times are microseconds of the machine's monotonic clock."""
    events = [one for record in records for one in _engine(record)]
    events += [one for sample in samples for one in _machine(sample)]
    events.append(_name("process_name", _MACHINE, 0, "machine"))
    dropped = {record.model: record.dropped for record in records if record.dropped}
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"dropped": dropped} if dropped else {}}


def _engine(record: Record) -> Iterator[dict[str, Any]]:
    pid = record.pid
    yield _name("process_name", pid, 0, f"generate: {record.model}")
    yield _name("thread_name", pid, _STEPS, "steps")
    yield _name("thread_name", pid, _PARTS, "parts of steps")
    for event in record.events:
        at = {"pid": pid, "ts": event.began / 1e3}
        if event.name == COUNTS:
            yield {
                "ph": "C",
                "name": "sequences",
                "args": {k: event.about[k] for k in ("decoding", "prefilling", "waiting")},
                **at,
            }
            yield {"ph": "C", "name": "KV blocks", "args": {"used": event.about["kv_used"]}, **at}
        elif event.name == REQUEST:
            # Keys are an engine's own.
            about = {"name": "request", "cat": "request", "id2": {"local": hex(event.about["key"])}, "tid": 0, **at}
            yield {"ph": "b", **about}
            yield {"ph": "e", **about, "ts": (event.began + event.took) / 1e3}
        else:
            tid = _STEPS if event.name == STEP else _PARTS
            yield {"ph": "X", "name": event.name, "dur": event.took / 1e3, "tid": tid, "args": event.about, **at}


def _machine(sample: Sample) -> Iterator[dict[str, Any]]:
    at = {"ph": "C", "pid": _MACHINE, "ts": sample.at / 1e3}
    busy = {name: round(cores, 3) for name, cores in sample.cores.items()}
    yield {"name": "busy cores", "args": busy | {"others": round(sample.others, 3)}, **at}
    for gpu in sample.gpus:
        numbers = {"busy": gpu.busy, "watts": gpu.watts, "MHz": gpu.clock}
        yield {"name": f"GPU {gpu.index}", "args": {name: value for name, value in numbers.items() if value is not None}, **at}


def _name(kind: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}
