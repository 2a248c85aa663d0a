"""How soon a client that goes away frees its sequence, through the OpenAI-compatible API, streaming or not.

Every slot is taken; one more request waits. A client closes its connection, and the clock runs until the waiting request has
its answer of one token: the time to free the slot, and on top of it a prefill and a step among the other sequences.

Run: python -m bench.leaving
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from .machine import describe
from .serving import Serving

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_PATIENCE_S = 60.0
_SETTLED_S = 0.1  # until the waiting request has been tried
_TOKENS = 1900  # of an answer that is left: it never ends by itself in a round


async def ask(port: int, tokens: int, *, stream: bool) -> Connection:
    """Sends a request; returns its connection."""
    asked = {"model": "triune", "prompt": "Once upon a time", "max_tokens": tokens, "ignore_eos": True, "stream": stream}
    body = json.dumps(asked).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + b"content-type: application/json\r\n\r\n" + body)
    return reader, writer


async def short_answer(port: int) -> None:
    """An answer of one token."""
    reader, writer = await ask(port, 1, stream=False)
    answer = await asyncio.wait_for(reader.read(), _PATIENCE_S)
    assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
    writer.close()


async def running(serving: Serving, wanted: int) -> None:
    """Waits until so many requests run."""
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(1200):
            text = (await client.get(serving.metrics_url)).text
            if _metric(text, "vllm:num_requests_running") == wanted:
                return
            await asyncio.sleep(0.05)
    raise RuntimeError(f"{wanted} requests never ran at once")


def _metric(text: str, name: str, **labels: str) -> float:
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())


async def measure(serving: Serving, rounds: int, *, stream: bool) -> dict[str, Any]:
    """The delays of one kind of client, in milliseconds."""
    port = serving.openai_port
    text = httpx.get(serving.metrics_url, trust_env=False).text
    slots = int(_metric(text, "nv_trt_llm_kv_cache_block_metrics", kv_cache_block_type="max"))
    delays = []
    for _ in range(rounds):  # from the beginning each time: a GPU answers with all tokens in seconds
        held = [await ask(port, _TOKENS, stream=stream) for _ in range(slots)]
        await running(serving, slots)
        waiting = asyncio.create_task(short_answer(port))
        await asyncio.sleep(_SETTLED_S)
        if waiting.done():
            raise RuntimeError("a slot was free before anybody left")
        began = time.perf_counter()
        held.pop()[1].transport.abort()
        await waiting
        delays.append(1000 * (time.perf_counter() - began))
        for _, writer in held:
            writer.transport.abort()
        await running(serving, 0)
    return {
        "median_ms": round(statistics.median(delays)),
        "worst_ms": round(max(delays)),
        "each_ms": [round(d) for d in delays],
    }


async def both(serving: Serving, rounds: int) -> dict[str, Any]:
    return {name: await measure(serving, rounds, stream=name == "streaming") for name in ("streaming", "not_streaming")}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.leaving", description=__doc__)
    parser.add_argument("--repository", type=Path, default=Path("build/smollm2-135m/cpu/repository"), help="what to serve")
    parser.add_argument("--rounds", type=int, default=9, help="clients that leave; medians are reported (default %(default)s)")
    options = parser.parse_args()
    with Serving(str(options.repository), openai=True) as serving:
        figures = asyncio.run(both(serving, options.rounds))
    print(json.dumps({"machine": describe()} | figures))


if __name__ == "__main__":
    main()
