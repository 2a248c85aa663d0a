"""What the runtime counts, as plain numbers under the names that dashboards of TensorRT-LLM and vLLM know. No Triton.

`drain()` gives what has changed since it was last asked, so that an adapter can hand it on in batches.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .kv.store import KvUsage
from .request import FinishReason, Times

Labels = tuple[tuple[str, str], ...]
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)
_LONG_SECONDS = (*_SECONDS, 300.0, 600.0, 1800.0)  # reasoning may take 30,000 tokens
_FAST = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)
_MAX_OBSERVATIONS = 10_000  # of one histogram between two drains; if nobody drains, the oldest are dropped
_MAX_GAPS = 500  # of those between tokens, handed on at one drain: each costs a message to the server's process
_ENDINGS = {"stop": "stop", "length": "length", "cancelled": "abort", "deadline": "abort", "error": "error"}  # vLLM's words


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family; a series of it has one of `values` for the label, where it has a label."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    buckets: tuple[float, ...] = ()
    label: str | None = None
    values: tuple[str, ...] = ()


def _table(*families: Family) -> dict[str, Family]:
    return {family.name: family for family in families}


FOLDERS = ("engine", "tmp", "shm")  # where disks are looked at; Triton's processes talk through /dev/shm
_TOKEN_GAP = "Seconds between tokens, the mean of a request"
_EACH_GAP = "Seconds from an answer's token to its next; where there are over 1,000 a second, an even sample of them"

FAMILIES = _table(
    Family("vllm:num_requests_running", "gauge", "Requests that hold a KV slot"),
    Family("vllm:num_requests_waiting", "gauge", "Requests that wait for a KV slot"),
    Family("vllm:kv_cache_usage_perc", "gauge", "Share of the KV cache's tokens in use, 0 to 1"),
    Family("vllm:prompt_tokens_total", "counter", "Prompt tokens computed"),
    Family("vllm:generation_tokens_total", "counter", "Tokens generated"),
    Family("vllm:prefix_cache_queries_total", "counter", "Prompt tokens that were looked up in the KV cache"),
    Family("vllm:prefix_cache_hits_total", "counter", "Those of them that were found computed"),
    Family("vllm:spec_decode_num_drafts_total", "counter", "Runs that checked drafts"),
    Family("vllm:spec_decode_num_draft_tokens_total", "counter", "Tokens guessed ahead"),
    Family("vllm:spec_decode_num_accepted_tokens_total", "counter", "Tokens guessed ahead that were right"),
    Family("vllm:request_success_total", "counter", "Requests that have ended", label="finished_reason",
           values=("stop", "length", "abort", "error")),
    Family("vllm:time_to_first_token_seconds", "histogram", "Seconds from arrival to the first token", _SECONDS),
    Family("vllm:time_per_output_token_seconds", "histogram", _TOKEN_GAP, _FAST),
    Family("vllm:request_time_per_output_token_seconds", "histogram", _TOKEN_GAP, _FAST),
    Family("vllm:inter_token_latency_seconds", "histogram", _EACH_GAP, _FAST),
    Family("vllm:e2e_request_latency_seconds", "histogram", "Seconds from arrival to the end", _LONG_SECONDS),
    Family("vllm:request_queue_time_seconds", "histogram", "Seconds from arrival to a KV slot", _SECONDS),
    Family("vllm:request_prefill_time_seconds", "histogram", "Seconds from a KV slot to the first token", _SECONDS),
    Family("vllm:request_decode_time_seconds", "histogram", "Seconds from the first token to the last", _LONG_SECONDS),
    Family("nv_trt_llm_request_metrics", "gauge", "Requests", label="request_type",
           values=("waiting", "context", "scheduled", "active", "max")),
    Family("nv_trt_llm_kv_cache_block_metrics", "gauge", "KV cache in blocks; where memory lies in slots, these",
           label="kv_cache_block_type",
           values=("used", "free", "max", "tokens_per", "fraction")),
    Family("triune_kv_cache_tokens", "gauge", "KV cache in tokens", label="type", values=("used", "free", "max")),
    Family("triune_kv_cache_bytes", "gauge", "KV cache in bytes", label="type", values=("used", "free", "max")),
    Family("triune_requests_refused_total", "counter", "Requests refused before they were queued", label="reason",
           values=("overloaded", "invalid")),
    Family("triune_requests_aborted_total", "counter", "Requests ended before their answer was", label="reason",
           values=("cancelled", "deadline", "error")),
    Family("triune_abort_to_free_seconds", "histogram", "Seconds from an abort being asked for to its slot being free", _FAST),
    Family("triune_start_time_seconds", "gauge", "When the engine's process began, in seconds since 1970"),
    Family("triune_resident_memory_bytes", "gauge", "Memory of the engine's process that is in RAM, mapped weights included"),
    Family("triune_disk_free_bytes", "gauge", "Bytes left to users on a folder's disk", label="folder", values=FOLDERS),
    Family("triune_disk_size_bytes", "gauge", "Bytes of a folder's disk", label="folder", values=FOLDERS),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Update:
    """A counter's growth, a gauge's new value, or a histogram's new observations."""

    family: str
    labels: Labels
    value: float = 0.0
    observations: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """How full an engine is."""

    decoding: int = 0  # requests
    prefilling: int = 0
    waiting: int = 0
    tokens: int = 0  # in the KV cache
    slots: int  # sequences that can hold KV memory at once
    kv: KvUsage
    kv_bytes: int = 0  # of the KV cache that hold tokens
    kv_bytes_max: int = 0  # in all


@dataclass(frozen=True, slots=True)
class Disk:
    """How full a disk is."""

    free_bytes: int  # for who is not root
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What the engine's process takes of the machine."""

    started: float  # seconds since 1970
    resident_bytes: int
    disks: Mapping[str, Disk]  # by `FOLDERS`; a folder that is not there is left out


@dataclass(slots=True)
class Clocking:
    """When things happened to one request while it is served, in the generator's seconds."""

    arrived: float
    started: float | None = None
    first: float | None = None
    latest: float | None = None
    tokens: int = 0

    def times(self) -> Times:
        """The same, to be told to its client."""
        return Times(self.arrived, self.started, self.first, self.latest)


class Metrics:
    """Counts of one engine. The stepping thread writes, another may drain."""

    def __init__(self, empty: Snapshot) -> None:
        self._lock = threading.Lock()
        self._counters = {(f.name, labels): 0.0 for f in FAMILIES.values() if f.kind == "counter" for labels in _series(f)}
        self._observed: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_MAX_OBSERVATIONS))
        self._gaps: deque[float] = deque(maxlen=_MAX_OBSERVATIONS)
        self._gauges = {(f.name, labels): 0.0 for f in FAMILIES.values() if f.kind == "gauge" for labels in _series(f)}
        self.gauges(empty)

    def refused(self, reason: Literal["overloaded", "invalid"], count: int = 1) -> None:
        """Requests were not even queued."""
        self._count("triune_requests_refused_total", count, reason=reason)

    def started(self, clocking: Clocking, now: float) -> None:
        """A request has got its slot; its prompt is about to be computed."""
        clocking.started = now
        self._observe("vllm:request_queue_time_seconds", now - clocking.arrived)

    def prompt(self, tokens: int) -> None:
        """So many prompt tokens were computed."""
        self._count("vllm:prompt_tokens_total", tokens)

    def looked_up(self, tokens: int, found: int) -> None:
        """A prompt of so many tokens was looked up in the KV cache, and so many of them were found computed."""
        self._count("vllm:prefix_cache_queries_total", tokens)
        self._count("vllm:prefix_cache_hits_total", found)

    def first_token(self, clocking: Clocking, now: float) -> None:
        """The first token of an answer was generated."""
        clocking.first = now
        self._observe("vllm:time_to_first_token_seconds", now - clocking.arrived)
        if clocking.started is not None:
            self._observe("vllm:request_prefill_time_seconds", now - clocking.started)

    def next_token(self, gap_s: float) -> None:
        """A further token of an answer was generated, so long after the one before it."""
        self._gaps.append(gap_s)  # without the lock: for every token of every step

    def generated(self, tokens: int) -> None:
        """So many tokens were generated, of all answers together."""
        self._count("vllm:generation_tokens_total", tokens)

    def drafted(self, tokens: int, accepted: int) -> None:
        """A run has checked so many drafts."""
        self._count("vllm:spec_decode_num_drafts_total", 1)
        self._count("vllm:spec_decode_num_draft_tokens_total", tokens)
        self._count("vllm:spec_decode_num_accepted_tokens_total", accepted)

    def finished(self, times: Clocking, reason: FinishReason, now: float) -> None:
        """A request has ended."""
        self._observe("vllm:e2e_request_latency_seconds", now - times.arrived)
        if times.first is not None and times.latest is not None:
            decode_s = times.latest - times.first
            self._observe("vllm:request_decode_time_seconds", decode_s)
            if times.tokens > 1:
                for name in ("time_per_output_token", "request_time_per_output_token"):
                    self._observe(f"vllm:{name}_seconds", decode_s / (times.tokens - 1))
        self._count("vllm:request_success_total", 1, finished_reason=_ENDINGS[reason])
        if reason not in ("stop", "length"):
            self._count("triune_requests_aborted_total", 1, reason=reason)

    def freed(self, seconds: float) -> None:
        """A client had left; its slot was free `seconds` after that was known."""
        self._observe("triune_abort_to_free_seconds", seconds)

    def gauges(self, now: Snapshot) -> None:
        """Set every gauge."""
        running, kv = now.decoding + now.prefilling, now.kv
        room = kv.blocks * kv.block_tokens
        values: dict[str, Mapping[str, float]] = {
            "vllm:num_requests_running": {"": running},
            "vllm:num_requests_waiting": {"": now.waiting},
            "vllm:kv_cache_usage_perc": {"": now.tokens / room},
            "nv_trt_llm_request_metrics": {"waiting": now.waiting, "context": now.prefilling, "scheduled": running,
                                           "active": running + now.waiting, "max": now.slots},
            "nv_trt_llm_kv_cache_block_metrics": {"used": kv.used, "free": kv.blocks - kv.used, "max": kv.blocks,
                                                  "tokens_per": kv.block_tokens, "fraction": kv.used / kv.blocks},
            "triune_kv_cache_tokens": {"used": now.tokens, "free": room - now.tokens, "max": room},
            "triune_kv_cache_bytes": {"used": now.kv_bytes, "free": now.kv_bytes_max - now.kv_bytes, "max": now.kv_bytes_max},
        }  # fmt: skip
        with self._lock:
            for name, series in values.items():
                label = FAMILIES[name].label
                for of, value in series.items():
                    self._gauges[name, ((label, of),) if label else ()] = value

    def process(self, usage: Usage) -> None:
        """Set the gauges of the process and its disks."""
        with self._lock:
            self._gauges["triune_start_time_seconds", ()] = usage.started
            self._gauges["triune_resident_memory_bytes", ()] = usage.resident_bytes
            for folder, disk in usage.disks.items():
                labels = (("folder", folder),)
                self._gauges["triune_disk_free_bytes", labels] = disk.free_bytes
                self._gauges["triune_disk_size_bytes", labels] = disk.size_bytes

    def drain(self) -> list[Update]:
        """All that has changed since the last call, and all gauges. The first call names every counter."""
        with self._lock:
            counters, self._counters = self._counters, {}
            observed, self._observed = self._observed, defaultdict(lambda: deque(maxlen=_MAX_OBSERVATIONS))
            gauges = dict(self._gauges)
            gaps, self._gaps = self._gaps, deque(maxlen=_MAX_OBSERVATIONS)
        if gaps:
            observed["vllm:inter_token_latency_seconds"].extend(list(gaps)[:: -(-len(gaps) // _MAX_GAPS)])
        return [
            *(Update(name, labels, value) for (name, labels), value in counters.items()),
            *(Update(name, labels, value) for (name, labels), value in gauges.items()),
            *(Update(name, (), observations=tuple(seen)) for name, seen in observed.items()),
        ]

    def _count(self, name: str, value: float, **labels: str) -> None:
        key = name, tuple(labels.items())
        with self._lock:
            self._counters[key] = self._counters.get(key, 0.0) + value

    def _observe(self, name: str, value: float) -> None:
        with self._lock:
            self._observed[name].append(value)


def _series(family: Family) -> list[Labels]:
    return [((family.label, value),) for value in family.values] if family.label else [()]
