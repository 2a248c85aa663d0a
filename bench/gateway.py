"""What the OpenAI-compatible API costs: the same answers streamed through it and straight from the ensemble over gRPC.

One server serves both, in turn: each round asks once the one way and once the other, in an order that alternates, and the ratio
is the median over the rounds. Both clients are as lean as they can be, so that the cores they share with the server are its
own: one asyncio process that reads every message and decodes it. `--client openai` measures with the package `openai` instead.

Run: python -m bench.gateway
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import psutil
from tritonclient.grpc import service_pb2, service_pb2_grpc

from .machine import busy_share, describe
from .pieces import read_piece
from .prompts import prompt
from .serving import Serving
from .timing import Round, Stream, summarize

Ask = Callable[[str, int], Awaitable[Stream]]
_DATA = b"data: "


def over_grpc(address: str) -> Ask:
    """Asks the ensemble itself. To be called in the event loop that asks."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.aio.insecure_channel(address))

    async def ask(text: str, tokens: int) -> Stream:
        request = service_pb2.ModelInferRequest(model_name="triune")
        raw_text = text.encode()
        for name, datatype, raw in (
            ("text_input", "BYTES", struct.pack("<I", len(raw_text)) + raw_text),
            ("max_tokens", "INT32", struct.pack("<i", tokens)),
            ("temperature", "FP32", struct.pack("<f", 0.0)),
            ("ignore_eos", "BOOL", b"\1"),
            ("stream", "BOOL", b"\1"),
        ):
            request.inputs.add(name=name, datatype=datatype, shape=[1])
            request.raw_input_contents.append(raw)
        sent = time.perf_counter()
        arrivals = []
        async for response in stub.ModelStreamInfer(iter((request,))):
            piece = read_piece(response)
            piece.text.decode()
            arrivals.append((time.perf_counter(), piece.tokens))
        return _stream(sent, arrivals)

    return ask


def over_http(port: int) -> Ask:
    """Asks the OpenAI-compatible API on this port, with a connection for each answer."""

    async def ask(text: str, tokens: int) -> Stream:
        asked = {
            "model": "triune", "prompt": text, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }  # fmt: skip
        body = json.dumps(asked).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nhost: here\r\ncontent-length: {len(body)}\r\n"
        head += "content-type: application/json\r\n\r\n"
        sent = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode() + body)
        arrivals, before = [], 0
        async for line in reader:
            if not line.startswith(_DATA):
                if line.startswith(b"HTTP/1.1 ") and b" 200 " not in line:
                    raise RuntimeError(f"the answer is {line!r}")
                continue
            if line.startswith(b"data: [DONE]"):
                break
            event = json.loads(line[len(_DATA) :])
            count = event["usage"]["completion_tokens"]
            arrivals.append((time.perf_counter(), count - before))
            before = count
        writer.close()
        return _stream(sent, arrivals)

    return ask


def through_package(port: int) -> Ask:
    """Asks as users do, with the package `openai`."""
    import openai  # only if asked for: it is a requirement of the tests

    client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)

    async def ask(text: str, tokens: int) -> Stream:
        sent = time.perf_counter()
        events = await client.completions.create(
            model="triune", prompt=text, max_tokens=tokens, temperature=0, stream=True, extra_body={"ignore_eos": True},
            stream_options={"include_usage": True, "continuous_usage_stats": True},  # type: ignore[typeddict-unknown-key]
        )  # fmt: skip
        arrivals, before = [], 0
        async for event in events:
            count = event.usage.completion_tokens if event.usage else before
            arrivals.append((time.perf_counter(), count - before))
            before = count
        return _stream(sent, arrivals)

    return ask


def _stream(sent: float, arrivals: Sequence[tuple[float, int]]) -> Stream:
    """Without the messages that bring no token: the finish, the usage."""
    return Stream(sent, tuple(one for one in arrivals if one[1]))


async def one_round(ask: Ask, prompts: Sequence[str], tokens: int) -> Round:
    """All prompts at once."""
    return summarize(await asyncio.gather(*(ask(text, tokens) for text in prompts)), tokens)


async def measure(serving: Serving, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of all rounds."""
    openai_way = through_package if options.client == "openai" else over_http
    ways = {"grpc": over_grpc(serving.grpc_url), "openai": openai_way(serving.openai_port)}
    rounds: dict[str, list[Round]] = {name: [] for name in ways}
    asked, cpu_s, counted = 0, 0.0, 0
    gateway = _gateway_of(serving)
    for number in range(-1, options.rounds):  # the first is not counted
        for name in sorted(ways, reverse=number % 2 == 0):
            prompts = [prompt(asked + i) for i in range(options.streams)]
            asked += options.streams
            before = _cpu_s(gateway)
            found = await one_round(ways[name], prompts, options.tokens)
            if number >= 0:
                rounds[name].append(found)
                if name == "openai":
                    cpu_s, counted = cpu_s + _cpu_s(gateway) - before, counted + options.streams * options.tokens
    each = [openai.tokens_per_s / grpc.tokens_per_s for openai, grpc in zip(rounds["openai"], rounds["grpc"], strict=True)]
    medians = {
        name: {
            "tokens_per_s": round(statistics.median(one.tokens_per_s for one in found), 1),
            "first_token_ms": round(1000 * statistics.median(one.first_token_s for one in found), 1),
        }
        for name, found in rounds.items()
    }
    return {
        "openai_over_grpc": round(statistics.median(each), 3),
        "each": [round(one, 3) for one in each],
        "gateway_cpu_us_per_token": round(1e6 * cpu_s / counted),
        "medians": medians,
    }


def _gateway_of(serving: Serving) -> psutil.Process:
    family = psutil.Process(serving.process.pid).children()
    return next(process for process in family if "triune_gateway" in " ".join(process.cmdline()))


def _cpu_s(process: psutil.Process) -> float:
    spent = process.cpu_times()
    return float(spent.user + spent.system)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=__doc__)
    parser.add_argument("--repository", type=Path, default=Path("build/smollm2-135m/cpu/repository"), help="what to serve")
    parser.add_argument("--streams", type=int, default=16, help="answers at once (default %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="length of every answer (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds; the median is reported (default %(default)s)")
    parser.add_argument("--client", choices=("lean", "openai"), default="lean", help="of the API (default %(default)s)")
    options = parser.parse_args()
    busy = busy_share()
    with Serving(str(options.repository), openai=True) as serving:
        figures = asyncio.run(measure(serving, options))
    print(json.dumps({"machine": describe() | {"busy_before": round(busy, 2)}, "streams": options.streams} | figures))


if __name__ == "__main__":
    main()
