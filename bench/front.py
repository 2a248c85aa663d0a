"""What the front before Triton's HTTP costs: first token and tokens/s over it and past it, turn by turn, of one server.

Past it goes over the Unix socket that the front itself uses. Run: python -m bench.front REPOSITORY [--streams 16] [--rounds 8]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil

from .serving import Serving


@dataclass
class Way:
    """One way to the server, and what was measured of it."""

    name: str
    port: int | None
    socket: str | None
    first_ms: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)  # tokens/s of a round

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.socket is not None:
            return await asyncio.open_unix_connection(self.socket)
        return await asyncio.open_connection("127.0.0.1", self.port)


def request(tokens: int) -> bytes:
    body = json.dumps({"text_input": "Once upon a time", "max_tokens": tokens, "stream": True, "ignore_eos": True}).encode()
    head = f"POST /v2/models/triune/generate_stream HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def stream(way: Way, tokens: int) -> tuple[float, int]:
    """Milliseconds to the first token, and how many tokens came."""
    began = time.perf_counter()
    reader, writer = await way.open()
    writer.write(request(tokens))
    first, received = 0.0, 0
    while received < tokens:
        line = await reader.readline()
        assert line, "the stream ended early"
        if line.startswith(b"data:"):
            first = first or 1000 * (time.perf_counter() - began)
            received += json.loads(line[5:])["num_output_tokens"]
    writer.close()
    return first, received


async def measure(ways: Sequence[Way], streams: int, tokens: int, rounds: int) -> None:
    for turn in range(rounds + 1):
        for way in ways if turn % 2 else reversed(ways):
            alone = [(await stream(way, 1))[0] for _ in range(12)]
            began = time.perf_counter()
            done = await asyncio.gather(*(stream(way, tokens) for _ in range(streams)))
            if turn:  # the first one warms up
                way.first_ms += alone
                way.rates.append(sum(count for _, count in done) / (time.perf_counter() - began))


def upstream_of(pid: int) -> str:
    """The socket that the front of a server talks to."""
    for process in psutil.Process(pid).children(recursive=True):
        for argument in process.cmdline():
            if argument.startswith("--http-upstream="):
                return argument.partition("=")[2]
    raise SystemExit("error: no front is among the server's processes")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the front costs")
    parser.add_argument("repository")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64, help="of a stream (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=8)
    args = parser.parse_args()
    with Serving(args.repository, openai=False) as serving:
        ways = [Way("front", serving.http_port, None), Way("direct", None, upstream_of(serving.process.pid))]
        asyncio.run(measure(ways, args.streams, args.tokens, args.rounds))
    front, direct = ways
    for way in ways:
        first_ms, rate = statistics.median(way.first_ms), statistics.median(way.rates)
        print(f"{way.name:<7} first token {first_ms:6.2f} ms   {rate:8.1f} tokens/s")
    later = statistics.median(front.first_ms) - statistics.median(direct.first_ms)
    ratio = statistics.median(one / other for one, other in zip(front.rates, direct.rates, strict=True))
    print(f"front against direct: first token {later:+.2f} ms, tokens/s x{ratio:.3f}")


if __name__ == "__main__":
    main()
