"""The requests of a simulation: a Poisson process, or a file of arrivals and lengths."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BuildError, quoted

POISSON = "poisson:"
_NAMES = (
    ("arrival", "at", "timestamp"),
    ("prompt", "input_tokens"),
    ("output", "output_tokens"),
)  # the others: `triune load`'s
_MOST = 20_000_000
_EXAMPLE = f"choose e.g. --simulate {POISSON}4,1000,300: requests a second, tokens of a prompt, of an answer"


@dataclass(frozen=True)
class Traffic:
    """Requests in the order of their arrival: seconds, and tokens of prompts and answers."""

    arrival: NDArray[np.float64]
    prompt: NDArray[np.int64]
    output: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.arrival)

    @property
    def rate(self) -> float:
        """Requests a second, in the mean."""
        span = float(self.arrival[-1] - self.arrival[0])
        return (len(self) - 1) / span if span > 0 else float("inf")

    def first(self, count: int) -> Traffic:
        return Traffic(self.arrival[:count], self.prompt[:count], self.output[:count])


def read_traffic(said: str, *, requests: int, seed: int) -> Traffic:
    """What `--simulate` names.

    Args:
        requests: of a Poisson process; of a file, the most that are taken.
        seed: of chance; lengths of a Poisson process spread as a geometric distribution does.

    Raises:
        BuildError: it is neither a process nor a file of requests.
    """
    if not 1 <= requests <= _MOST:
        raise BuildError(f"--requests is {requests:,}; it can be 1 to {_MOST:,}", "choose e.g. --requests 10000")
    if said.startswith(POISSON):
        rate, prompt, output = _process(said)
        chance = np.random.default_rng(seed)
        return Traffic(
            np.cumsum(chance.exponential(1 / rate, requests)),
            chance.geometric(1 / prompt, requests).astype(np.int64),
            chance.geometric(1 / output, requests).astype(np.int64),
        )
    return _read(Path(said).expanduser()).first(requests)


def _process(said: str) -> tuple[float, float, float]:
    try:
        rate, prompt, output = (float(part) for part in said.removeprefix(POISSON).split(","))
    except ValueError:
        raise BuildError(f"--simulate is {said!r}; expected {POISSON}RATE,PROMPT,OUTPUT", _EXAMPLE) from None
    if not (0 < rate < 1e9 and 1 <= prompt <= 1e7 and 1 <= output <= 1e7):
        raise BuildError(f"--simulate is {said!r}; a rate is above 0, lengths are 1 or more", _EXAMPLE)
    return rate, prompt, output


def _value(row: Any, names: tuple[str, ...]) -> float:
    return float(row[next((name for name in names if name in row), names[0])])


def _read(path: Path) -> Traffic:
    """A file of JSON lines with arrival (seconds), prompt and output (tokens), or CSV with these columns."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"--simulate names {path}, which cannot be read: {error}", _EXAMPLE) from error
    rows: list[Any] = []
    try:
        if text.lstrip().startswith("{"):
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = list(csv.DictReader(text.splitlines()))
        found = np.array([[_value(row, names) for names in _NAMES] for row in rows])
    except (ValueError, KeyError, TypeError) as error:
        raise BuildError(
            f"{path} is no trace: {type(error).__name__} {quoted(str(error))} in line {len(rows) or 1} or behind it",
            "expected JSON lines, or CSV with a head, of arrival (s), prompt and output (tokens)",
        ) from error
    if not len(found) or not np.isfinite(found).all() or (found[:, 0] < 0).any() or (found[:, 1:] < 1).any():
        raise BuildError(f"{path} has no request, or one without tokens or before time 0", "correct the file")
    found = found[np.argsort(found[:, 0], kind="stable")]
    return Traffic(found[:, 0], found[:, 1].astype(np.int64), found[:, 2].astype(np.int64))
