"""Twenty times more than a server can do: how fast it refuses, and how much it still does.

    python -m bench.overload --protocols chat --openai 127.0.0.1:8003

First as many clients as there are slots ask one request after the other: what is answered is its capacity. Then requests come
at TIMES that rate, in turn over each protocol, whatever becomes of those before. Both are counted in a window, when answers
have begun to end and while the load goes on; what is under way at its end is left. The lengths of answers differ, from half to
one and a half of `--tokens`, so that they do not all end at once.

The load shares the machine with the server. So it is as lean as it can be: requests are bytes made before, and of an answer no
more is read than its head. How long a refusal took counts from when its request was due.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .asking import Ask, over_grpc, over_http

ANSWERED, REFUSED = ("200", "OK"), ("503", "UNAVAILABLE")
_QUESTION = "What is 487 * 36?"


@dataclass(frozen=True)
class Outcome:
    """What became of a request: its status, the seconds until then, and when that was."""

    protocol: str
    status: str
    seconds: float
    ended: float
    retry_after: bool


class Asker:
    """Asks one server, in turn over each of some protocols."""

    def __init__(self, ways: Sequence[tuple[str, Ask]]) -> None:
        self._ways = ways

    async def ask(self, number: int, due: float) -> Outcome:
        protocol, way = self._ways[number % len(self._ways)]
        status, retry_after = await way(number)
        now = time.monotonic()
        return Outcome(protocol, status, now - due, now, retry_after)


def ways(args: argparse.Namespace) -> list[tuple[str, Ask]]:
    """How each protocol asks; to be called in the event loop that asks."""

    def tokens(number: int) -> int:
        return int(args.tokens // 2 + number * 7919 % (args.tokens + 1))

    def prompted(name: str, number: int, **more: Any) -> bytes:
        said = f"{number} {_QUESTION}"
        return json.dumps({name: said, "max_tokens": tokens(number), "ignore_eos": True, **more}).encode()

    def chat(number: int) -> bytes:
        asked = {"role": "user", "content": f"{number} {_QUESTION}"}
        more = {"max_tokens": tokens(number), "ignore_eos": True}
        return json.dumps({"model": args.model, "messages": [asked], **more}).encode()

    def inputs(number: int) -> dict[str, tuple[str, object]]:
        return {
            "text_input": ("BYTES", f"{number} {_QUESTION}"), "max_tokens": ("INT32", tokens(number)),
            "ignore_eos": ("BOOL", True),
        }  # fmt: skip

    known = {
        "openai": lambda: over_http(
            args.openai, "/v1/completions", lambda n: prompted("prompt", n, model=args.model), args.key
        ),
        "chat": lambda: over_http(args.openai, "/v1/chat/completions", chat, args.key),
        "http": lambda: over_http(
            args.http, f"/v2/models/{args.model}/generate", lambda n: prompted("text_input", n), args.key
        ),
        "grpc": lambda: over_grpc(args.grpc, f"{args.model}_infer", inputs, args.key),
    }
    return [(name, known[name]()) for name in args.protocols]


async def capacity(asker: Asker, clients: int, warm_s: float, seconds: float) -> float:
    """Requests answered a second with as many clients as slots, after `warm_s` seconds.

    Raises:
        RuntimeError: a request was not answered.
    """
    done: list[float] = []
    numbers = iter(range(1 << 30))

    async def client() -> None:
        while True:
            outcome = await asker.ask(next(numbers), time.monotonic())
            if outcome.status not in ANSWERED:
                raise RuntimeError(f"a request within the capacity got {outcome.status} over {outcome.protocol}")
            done.append(outcome.ended)

    begin = time.monotonic() + warm_s
    await _for(warm_s + seconds, [asyncio.create_task(client()) for _ in range(clients)])
    return sum(begin <= ended < begin + seconds for ended in done) / seconds


async def overload(asker: Asker, rate: float, warm_s: float, seconds: float) -> tuple[list[Outcome], float]:
    """Requests at a rate, in equal steps: what had ended in the window after `warm_s` seconds, and the share of a core that
    asking took."""
    outcomes: list[Outcome] = []
    tasks: set[asyncio.Task[None]] = set()
    began, spent = time.monotonic(), _cpu_s()

    async def one(number: int) -> None:
        outcomes.append(await asker.ask(number, began + number / rate))

    async def come() -> None:
        for number in range(int(rate * (warm_s + seconds))):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            task = asyncio.create_task(one(number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.Event().wait()

    await _for(warm_s + seconds, [asyncio.create_task(come())])
    spent = (_cpu_s() - spent) / (warm_s + seconds)
    await _for(0, list(tasks))
    begin = began + warm_s
    return [one for one in outcomes if begin <= one.ended < begin + seconds], spent


async def _for(seconds: float, tasks: list[asyncio.Task[None]]) -> None:
    """Let tasks go on for some seconds; the first that fails ends all."""
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION) if tasks else ((), ())
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def measure(args: argparse.Namespace) -> dict[str, object]:
    asker = Asker(ways(args))
    able = await capacity(asker, args.slots, args.warm, args.seconds)
    if not able:
        raise RuntimeError(f"no request was answered in {args.seconds:g} s: give --seconds more, or --tokens less")
    await asyncio.sleep(args.rest)
    load = os.getloadavg()[0]
    outcomes, spent = await overload(asker, args.times * able, args.warm, args.seconds)
    return {
        "capacity_requests_per_s": round(able, 2), "times": args.times, "client_cores": round(spent, 3),
        "load_average_before": round(load, 2), **summary(outcomes, able, args.seconds),
    }  # fmt: skip


def summary(outcomes: Sequence[Outcome], able: float, seconds: float) -> dict[str, object]:
    """What the outcomes of a window of some seconds come to, beside a capacity in requests a second."""
    done = sum(one.status in ANSWERED for one in outcomes) / seconds
    refused = [one for one in outcomes if one.status in REFUSED]
    waits = {
        name: {"median": _ms(statistics.median(found)), "p90": _ms(sorted(found)[len(found) * 9 // 10])}
        for name in dict.fromkeys(one.protocol for one in refused)
        if (found := [one.seconds for one in refused if one.protocol == name])
    }
    return {
        "goodput_requests_per_s": round(done, 2), "goodput_of_capacity": round(done / able, 3), "refusal_ms": waits,
        "refusals_with_retry_after": all(one.retry_after for one in refused if one.status == "503"),
        "outcomes": dict(Counter(f"{one.protocol} {one.status}" for one in outcomes)),
    }  # fmt: skip


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 1)


def _cpu_s() -> float:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--openai", default="127.0.0.1:8003", metavar="HOST:PORT")
    parser.add_argument("--http", default="127.0.0.1:8000", metavar="HOST:PORT")
    parser.add_argument("--grpc", default="127.0.0.1:8001", metavar="HOST:PORT")
    names = ("chat", "openai", "http", "grpc")
    parser.add_argument(
        "--protocols", nargs="+", choices=names, default=list(names),
        help="asked in turn: chat and completions of OpenAI's, KServe's generate, gRPC's ModelInfer",
    )  # fmt: skip
    parser.add_argument("--model", default="triune")
    parser.add_argument("--key", help="an API key")
    parser.add_argument("--slots", type=int, default=16, help="of the engine (default 16)")
    parser.add_argument("--tokens", type=int, default=400, help="of an answer, in the mean (default 400)")
    parser.add_argument("--times", type=float, default=20.0, help="what is asked, in capacities (default 20)")
    parser.add_argument("--warm", type=float, default=8.0, help="seconds before each part's window (default 8)")
    parser.add_argument("--rest", type=float, default=3.0, help="seconds between the parts (default 3)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each part's window (default 30)")
    print(json.dumps(asyncio.run(measure(parser.parse_args())), indent=2))


if __name__ == "__main__":
    main()
