"""What the front before Triton's HTTP costs: first token and tokens/s over it and past it, turn by turn, of one server.

Past it goes over the Unix socket that the front itself uses. With a certificate a second front before that socket speaks TLS.
Run: python -m bench.front REPOSITORY [--streams 16] [--rounds 8] [--tls-cert FILE --tls-key FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from .ports import free_port
from .serving import Serving

_ALONE = 20  # requests of a round, one after the other


@dataclass
class Way:
    """One way to the server, and what was measured of it."""

    name: str
    port: int | None
    socket: str | None
    tls: ssl.SSLContext | None = None
    process: psutil.Process | None = None  # whose processor time is counted
    first_ms: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)  # tokens/s of a round
    token_us: list[float] = field(default_factory=list)  # of processor time, for each token of a round
    request_ms: list[float] = field(default_factory=list)  # and for each lone request, its connection included

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.socket is not None:
            return await asyncio.open_unix_connection(self.socket)
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls)

    def used_s(self) -> float:
        """Processor time of its process so far."""
        times = self.process.cpu_times() if self.process is not None else None
        return times.user + times.system if times is not None else 0.0


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
            used_s = way.used_s()
            alone = [(await stream(way, 1))[0] for _ in range(_ALONE)]
            request_ms = 1e3 * (way.used_s() - used_s) / _ALONE
            began, used_s = time.perf_counter(), way.used_s()
            done = await asyncio.gather(*(stream(way, tokens) for _ in range(streams)))
            if turn:  # the first one warms up
                count = sum(count for _, count in done)
                way.first_ms += alone
                way.rates.append(count / (time.perf_counter() - began))
                way.token_us.append(1e6 * (way.used_s() - used_s) / count)
                way.request_ms.append(request_ms)


def front_of(pid: int) -> tuple[psutil.Process, str]:
    """The front of a server, and the socket that it talks to."""
    for process in psutil.Process(pid).children(recursive=True):
        for argument in process.cmdline():
            if argument.startswith("--http-upstream="):
                return process, argument.partition("=")[2]
    raise SystemExit("error: no front is among the server's processes")


@contextmanager
def over_tls(upstream: str, certificate: Path, key: Path) -> Iterator[Way]:
    """A front before the same socket that speaks TLS."""
    port = free_port()
    upstreams = [f"--http-upstream={upstream}", f"--metrics-upstream={upstream}"]
    ports = [f"--http-port={port}", f"--metrics-port={free_port()}"]
    files = [f"--tls-cert={certificate}", f"--tls-key={key}"]
    process = psutil.Popen([sys.executable, "-m", "triune_gateway.kserve", *ports, *upstreams, *files])
    trusted = ssl.create_default_context(cafile=certificate)
    trusted.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    trusted.check_hostname = False
    try:
        while process.poll() is None and all(one.laddr.port != port for one in process.net_connections("tcp")):
            time.sleep(0.1)
        yield Way("tls", port, None, trusted, process)
    finally:
        process.terminate()
        process.wait()


def compare(one: Way, other: Way) -> None:
    later = statistics.median(one.first_ms) - statistics.median(other.first_ms)
    ratio = statistics.median(mine / theirs for mine, theirs in zip(one.rates, other.rates, strict=True))
    print(f"{one.name} against {other.name}: first token {later:+.2f} ms, tokens/s x{ratio:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the front costs")
    parser.add_argument("repository")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64, help="of a stream (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--tls-cert", type=Path, help="certificate in PEM: over TLS, too")
    parser.add_argument("--tls-key", type=Path)
    args = parser.parse_args()
    with Serving(args.repository, openai=False) as serving, ExitStack() as stack:
        process, upstream = front_of(serving.process.pid)
        ways = [Way("front", serving.http_port, None, None, process), Way("direct", None, upstream)]
        if args.tls_cert:
            ways.append(stack.enter_context(over_tls(upstream, args.tls_cert, args.tls_key)))
        asyncio.run(measure(ways, args.streams, args.tokens, args.rounds))
    for way in ways:
        first_ms, rate = statistics.median(way.first_ms), statistics.median(way.rates)
        used = f"{statistics.median(way.token_us):5.1f} us a token, {statistics.median(way.request_ms):.2f} ms a request"
        print(f"{way.name:<7} first token {first_ms:6.2f} ms   {rate:8.1f} tokens/s   of processor {used}")
    front, direct, *secured = ways
    compare(front, direct)
    for one in secured:
        compare(one, front)


if __name__ == "__main__":
    main()
