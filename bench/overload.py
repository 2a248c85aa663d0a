"""Twenty times more than a server can do: how fast it refuses, and how much it still does.

    python -m bench.overload --openai http://127.0.0.1:8003 --grpc 127.0.0.1:8001

First as many clients as there are slots ask one request after the other: that is its capacity. Then requests come at TIMES that
rate, in turn over each protocol, whatever becomes of those before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections import Counter
from dataclasses import dataclass

import grpc.aio
import httpx
from tritonclient.grpc import service_pb2, service_pb2_grpc

from triune_client import _wire

_PROMPT = "What is 487 * 36?"


@dataclass(frozen=True)
class Outcome:
    """What became of a request: its status, the seconds until then, and when that was."""

    protocol: str
    status: str
    seconds: float
    ended: float
    retry_after: bool = True


class Asker:
    """Asks one server over both protocols."""

    def __init__(self, openai: str, grpc_url: str, tokens: int, protocols: list[str]) -> None:
        self._openai, self._tokens, self._protocols = openai, tokens, protocols
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=200)
        self._http = httpx.AsyncClient(timeout=600, limits=limits, trust_env=False)
        self._channel = grpc.aio.insecure_channel(grpc_url)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def ask(self, number: int) -> Outcome:
        protocol = self._protocols[number % len(self._protocols)]
        began = time.monotonic()
        status, retry = await (self._ask_openai(number) if protocol == "openai" else self._ask_grpc(number))
        now = time.monotonic()
        return Outcome(protocol, status, now - began, now, retry)

    async def _ask_openai(self, number: int) -> tuple[str, bool]:
        body = {"model": "triune", "prompt": f"{number} {_PROMPT}", "max_tokens": self._tokens, "ignore_eos": True}
        try:
            response = await self._http.post(f"{self._openai}/v1/completions", json=body)
        except httpx.HTTPError as error:
            return type(error).__name__, False
        return str(response.status_code), "retry-after" in response.headers

    async def _ask_grpc(self, number: int) -> tuple[str, bool]:
        request = service_pb2.ModelInferRequest(model_name="triune_infer")
        values = {
            "text_input": ("BYTES", f"{number} {_PROMPT}"),
            "max_tokens": ("INT32", self._tokens),
            "ignore_eos": ("BOOL", True),
        }
        for name, (datatype, value) in values.items():
            request.inputs.add(name=name, datatype=datatype, shape=[1])
            request.raw_input_contents.append(_wire.pack(datatype, [value]))
        try:
            await self._stub.ModelInfer(request, timeout=600)
        except grpc.aio.AioRpcError as error:
            return error.code().name, True
        return "OK", True


async def capacity(asker: Asker, clients: int, seconds: float) -> float:
    """Requests answered a second with as many clients as slots; what was under way at the end counts by its part."""
    done = 0
    end = time.monotonic() + seconds

    async def client(number: int) -> None:
        nonlocal done
        while time.monotonic() < end:
            outcome = await asker.ask(number)
            assert outcome.status in ("200", "OK"), outcome
            done += 1

    began = time.monotonic()
    await asyncio.gather(*map(client, range(clients)))
    return done / (time.monotonic() - began)


async def overload(asker: Asker, rate: float, seconds: float) -> list[Outcome]:
    """Requests at a rate, in equal steps; returns when each has ended."""
    began, tasks = time.monotonic(), []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        tasks.append(asyncio.create_task(asker.ask(number)))
    return await asyncio.gather(*tasks)


async def measure(args: argparse.Namespace) -> dict[str, object]:
    asker = Asker(args.openai, args.grpc, args.tokens, args.protocols)
    await capacity(asker, args.slots, 3)
    able = await capacity(asker, args.slots, args.seconds)
    began = time.monotonic()
    outcomes = await overload(asker, args.times * able, args.seconds)
    answered = [one for one in outcomes if one.status in ("200", "OK")]
    refused = [one for one in outcomes if one.status in ("503", "UNAVAILABLE")]
    able_after = len(answered) / (max(one.ended for one in answered) - began)
    waits = {
        name: round(1000 * statistics.median(found), 1)
        for name in ("openai", "grpc")
        if (found := [one.seconds for one in refused if one.protocol == name])
    }
    found = Counter(f"{one.protocol} {one.status}" for one in outcomes)
    return {
        "capacity_requests_per_s": round(able, 2), "times": args.times, "goodput_requests_per_s": round(able_after, 2),
        "goodput_of_capacity": round(able_after / able, 3), "outcomes": dict(found),
        "refusal_median_ms": waits, "refusals_with_retry_after": all(one.retry_after for one in refused),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--openai", default="http://127.0.0.1:8003")
    parser.add_argument("--grpc", default="127.0.0.1:8001")
    parser.add_argument("--protocols", nargs="+", choices=("openai", "grpc"), default=["openai", "grpc"], help="asked in turn")
    parser.add_argument("--slots", type=int, default=16, help="of the engine (default 16)")
    parser.add_argument("--tokens", type=int, default=400, help="of each answer (default 400)")
    parser.add_argument("--times", type=float, default=20.0, help="what is asked, in capacities (default 20)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each part (default 30)")
    print(json.dumps(asyncio.run(measure(parser.parse_args())), indent=2))


if __name__ == "__main__":
    main()
