"""Where the time of recorded steps goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from triune_runtime.recorded import COMMIT, COUNTS, DRAFT, LAUNCH, PLAN, SAMPLE, STEP, TEXT, WAIT, Timed

from .recording import Record

REST = "rest"
# Parts of a step -> what they are, for people.
PHASES = {
    PLAN: "who is served next", DRAFT: "guess tokens ahead", LAUNCH: "the model; on a GPU, hand it over",
    WAIT: "for the GPU", SAMPLE: "choose tokens on the host", COMMIT: "keep the books", TEXT: "cut pieces of text",
    REST: "take tokens in, end answers",
}  # fmt: skip


@dataclass(frozen=True)
class Where:
    """Of one engine; seconds."""

    span_s: float  # that were recorded
    steps: int
    busy_s: float  # in steps
    parts: dict[str, float]  # by PHASES, together `busy_s`
    decoding: float  # sequences, on average while there were any
    waiting: float
    kv_share: float  # of blocks in use, at most
    full: float  # the share of looks in which requests waited

    @property
    def idle(self) -> float:
        """The share of time without a step."""
        return max(0.0, 1 - self.busy_s / self.span_s) if self.span_s else 1.0

    def share(self, *parts: str) -> float:
        """Of the time in steps."""
        return sum(self.parts.get(part, 0.0) for part in parts) / self.busy_s if self.busy_s else 0.0


def where(record: Record) -> Where:
    """Sum up."""
    spent, steps = Counter[str](), 0
    for event in record.events:
        spent[event.name] += event.took
        steps += event.name == STEP
    busy = spent[STEP] / 1e9
    parts = {name: spent[name] / 1e9 for name in PHASES if spent[name]}
    parts[REST] = max(0.0, busy - sum(parts.values()))
    counts = [event.about for event in record.events if event.name == COUNTS]
    kv = [one["kv_used"] / one["kv_blocks"] for one in counts if one["kv_blocks"]]
    span_s, decoding = (record.ended - record.began) / 1e9, _mean(one["decoding"] for one in counts)
    waiting, full = _mean(one["waiting"] for one in counts), _mean(one["waiting"] > 0 for one in counts)
    return Where(span_s, steps, busy, parts, decoding, waiting, max(kv, default=0.0), full)


def over_time(events: Iterable[Timed], began: int, seconds: float, buckets: int) -> dict[str, list[float]]:
    """Seconds of each part in each of so many pieces of time, `rest` as what of a step is none of the others."""
    width = seconds * 1e9 / buckets
    found = {name: [0.0] * buckets for name in (STEP, *PHASES)}
    for event in events:
        if event.name in found:
            _spread(found[event.name], event, began, width)
    steps = found.pop(STEP)
    for place, whole in enumerate(steps):
        found[REST][place] = max(0.0, whole - sum(found[name][place] for name in PHASES if name != REST))
    return found


def _spread(row: list[float], event: Timed, began: int, width: float) -> None:
    start, end = event.began - began, event.began + event.took - began
    for place in range(max(0, int(start / width)), min(len(row), int(end / width) + 1)):
        row[place] += max(0.0, min(end, (place + 1) * width) - max(start, place * width)) / 1e9


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0
