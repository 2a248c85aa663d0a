"""python -m bench.neighbours: gaps between the tokens of free streams beside the worst grammars, as a table and one JSON line.

Beside them the same streams alone, and beside programs that do nothing but compute: what grammars cost beyond that is the
server's doing. The three take turns, on a server of its own. A grammar that is refused is asked for again, always as a new one,
so that compiling is part of it.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from .machine import describe
from .serving import Serving
from .timing import percentile

Json = dict[str, Any]
_TOKENS = 1500  # of a free answer; then the stream asks again


def _prompt(number: int) -> str:
    """A short one: prompts keep others waiting, too, and that is not what is measured."""
    return f"Chapter {number}."


def _words(count: int) -> list[str]:
    """Different ones, of a letter and a number."""
    return [f"{ascii_lowercase[i % 26]}{i * 7919 % 9973}" for i in range(count)]


def _grammar(count: int, number: int, form: str) -> Json:
    """One of `count` texts.

    Args:
        form: of each, with its word and that word's first letter.
    """
    rules = [f"T{i}: {form.format(word=word, letter=word[0])}" for i, word in enumerate(_words(count))]
    return {"grammar": "\n".join(["start: " + " | ".join(f"T{i}" for i in range(count)), *rules, f"// {number}"])}


def _schema(count: int, number: int) -> Json:
    words = [f"{word}x{number}" for word in _words(count)]
    kinds = [
        {"type": "object", "properties": {"kind": {"type": "string", "pattern": f"^[a-z]*{word}$"}, word: {"type": "number"}}}
        for word in words
    ]
    return {"json": {"anyOf": kinds}}


# By what they cost on one core: a mask 50 ms, for as long as the answer lasts; a token 11 ms; a token 130 ms, with which the
# answer is refused; compiling 3 s, with which it is, too.
WORST: dict[str, Callable[[int], Json]] = {
    "250 negated words": lambda number: _grammar(250, number, "/[a-z0-9 ]*/ & ~/[a-z0-9 ]*{word}[a-z0-9 ]*/"),
    "500 negated words": lambda number: _grammar(500, number, "~/.*{word}.*/"),
    "900 kinds of JSON": lambda number: _schema(900, number),
    "900 endings": lambda number: _grammar(900, number, "/[^{letter}]*{word}/"),
}


@dataclass(frozen=True, kw_only=True)
class Gaps:
    """Of one case, in milliseconds."""

    case: str
    tokens: int
    median_ms: float
    p99_ms: float
    worst_ms: float
    grammars: int = 0  # answers, refused ones included


class Asker:
    """Asks a server for free answers, and for such with a guide."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._numbers = itertools.count()
        self.ended = 0  # answers with a guide

    async def free(self, until: float) -> list[float]:
        """Seconds between the pieces of answers, one after the other, each of a token."""
        gaps = list[float]()
        while time.perf_counter() < until:
            body = {"prompt": _prompt(next(self._numbers)), "max_tokens": _TOKENS, "ignore_eos": True, "stream": True}
            before = None
            async with self._http.stream("POST", "/v1/completions", json={"model": "triune", **body}) as response:
                response.raise_for_status()
                async for line in response.aiter_lines():
                    if (now := time.perf_counter()) > until:
                        break
                    if line.startswith("data: {"):
                        if before is not None:
                            gaps.append(now - before)
                        before = now
        return gaps

    async def guided(self, guide: Callable[[int], Json], until: float) -> None:
        """Answers with guides, one after the other."""
        while (left := until - time.perf_counter()) > 0:
            number = next(self._numbers)
            body = {"prompt": _prompt(number), "max_tokens": 200, "temperature": 1.0, "structured_outputs": guide(number)}
            try:
                async with asyncio.timeout(left):
                    response = await self._http.post("/v1/completions", json={"model": "triune", **body})
            except TimeoutError:
                return
            assert response.status_code in (200, 400, 503), response.text
            self.ended += 1


@contextmanager
def computing(programs: int) -> Iterator[None]:
    """So many programs that do nothing but compute."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(programs)]
    try:
        yield
    finally:
        for program in started:
            program.kill()
            program.wait()


async def measure(url: str, streams: int, seconds: float, guides: list[Callable[[int], Json]]) -> tuple[list[float], int]:
    """The gaps of so many streams beside answers with these guides, and how many of those answers ended."""
    async with httpx.AsyncClient(base_url=url, timeout=120.0, trust_env=False) as http:
        asker, until = Asker(http), time.perf_counter() + seconds
        async with asyncio.TaskGroup() as group:
            for guide in guides:
                group.create_task(asker.guided(guide, until))
            found = [group.create_task(asker.free(until)) for _ in range(streams)]
    return [gap for task in found for gap in task.result()], asker.ended


def figures(case: str, gaps: list[float], ended: int) -> Gaps:
    """What is told of the gaps of a case."""
    each = [1000 * gap for gap in gaps]
    p99, worst = round(percentile(each, 0.99), 1), round(max(each), 1)
    return Gaps(
        case=case, tokens=len(each), median_ms=round(statistics.median(each), 1), p99_ms=p99, worst_ms=worst, grammars=ended
    )


def run(serving: Serving, options: argparse.Namespace) -> list[Gaps]:
    """All cases, taking turns."""
    gaps: dict[str, list[float]] = {}
    ended: dict[str, int] = {}
    worst, most = list(WORST.values()), options.programs
    cases = ("alone", 0, []), ("beside the worst grammars", 0, worst), (f"beside {most} programs", most, [])
    for _ in range(options.rounds):
        for case, programs, guides in cases:
            with computing(programs):
                found, count = asyncio.run(measure(serving.openai_url, options.streams, options.seconds, guides))
            gaps.setdefault(case, []).extend(found)
            ended[case] = ended.get(case, 0) + count
            time.sleep(options.rest)
    return [figures(case, found, ended[case]) for case, found in gaps.items()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.neighbours", description=__doc__)
    parser.add_argument("--repository", type=Path, default=Path("build/smollm2-135m/cpu/repository"), help="what to serve")
    parser.add_argument("--streams", type=int, default=2, help="free ones (default %(default)s)")
    parser.add_argument("--programs", type=int, default=2, help="that compute (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each case (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each case in a round (default %(default)s)")
    parser.add_argument("--rest", type=float, default=5.0, help="seconds after each (default %(default)s)")
    options = parser.parse_args()
    with Serving(str(options.repository), openai=True) as serving:
        found = run(serving, options)
    table = Table(f"{options.streams} free streams", "tokens", "median, ms", "p99, ms", "worst, ms")
    for one in found:
        table.add_row(one.case, str(one.tokens), f"{one.median_ms:.1f}", f"{one.p99_ms:.1f}", f"{one.worst_ms:.1f}")
    Console(width=110).print(table)
    print(json.dumps({"machine": describe(), "gaps": [dataclasses.asdict(one) for one in found]}))


if __name__ == "__main__":
    main()
