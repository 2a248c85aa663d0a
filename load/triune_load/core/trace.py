"""A trace of requests that were really made: when, how long the prompt, how long the answer. From CSV or JSONL."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..errors import LoadError

# Names that published traces use: Azure's CSV, Mooncake's JSONL, BurstGPT's CSV.
_TIME = ("timestamp", "time", "at", "arrival", "arrived_at")
_INPUT = ("input_tokens", "input_length", "contexttokens", "request tokens", "prompt_tokens", "num_prefill_tokens")
_OUTPUT = ("output_tokens", "output_length", "generatedtokens", "response tokens", "completion_tokens", "num_decode_tokens")


@dataclass(frozen=True)
class Row:
    """One request of a trace."""

    at: float  # seconds after the first
    input_tokens: int
    output_tokens: int


def parse_trace(text: str, *, unit_s: float = 1.0, speed: float = 1.0) -> list[Row]:
    """The requests of a trace, the first at 0, in order of time.

    Args:
        text: JSONL if its first line is an object, else CSV with a line of names.
        unit_s: seconds in a unit of the time stamps that are numbers.
        speed: 2 plays it twice as fast.

    Raises:
        LoadError: a line lacks a time or a length.
    """
    found = sorted(_rows(text, unit_s), key=lambda row: row.at)
    if not found:
        raise LoadError("the trace has no request; expected a line for each")
    first = found[0].at
    return [Row((row.at - first) / speed, row.input_tokens, row.output_tokens) for row in found]


def _rows(text: str, unit_s: float) -> Iterable[Row]:
    lines: Iterable[Mapping[str, Any]]
    if text.lstrip().startswith("{"):
        lines = (_object(line) for line in text.splitlines() if line.strip())
    else:
        lines = csv.DictReader(io.StringIO(text.lstrip("\ufeff")))
    for number, line in enumerate(lines, start=1):
        row = {str(name).strip().lower(): value for name, value in line.items()}
        at = _time(_one(row, _TIME, number), unit_s, number)
        yield Row(at, _length(_one(row, _INPUT, number), number), _length(_one(row, _OUTPUT, number), number))


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise LoadError(f"a line of the trace is {line[:80]!r}; expected a JSON object")
    return found


def _one(row: Mapping[str, Any], names: tuple[str, ...], number: int) -> Any:
    for name in names:
        if row.get(name) not in (None, ""):
            return row[name]
    raise LoadError(f"request {number} of the trace has none of {', '.join(names)}; it has {', '.join(row) or 'nothing'}")


def _time(value: Any, unit_s: float, number: int) -> float:
    try:
        return float(value) * unit_s
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(str(value).strip()[:26]).timestamp()
    except ValueError:
        raise LoadError(f"request {number} of the trace is at {value!r}; expected a number, or a date and time") from None


def _length(value: Any, number: int) -> int:
    try:
        return max(1, int(float(value)))
    except ValueError:
        raise LoadError(f"request {number} of the trace has the length {value!r}; expected a number of tokens") from None
