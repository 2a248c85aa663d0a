"""The whole ensemble over gRPC, with the embedded tritonserver, beside the engine's bare loop in the same run; its exactness.

Exact means: alone, where each step computes what it computed before, a stream gives the text that comes unstreamed, and equal
seeds give equal text. Many at once are batched as they happen to come, and a GPU rounds otherwise then: it is told how many are
equal.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from r1_nano.problems import held_out
from r1_nano.recipe import Recipe
from r1_nano.scoring import is_right

from ..serving import Serving
from .clients import Answered, Asked, Clients
from .processors import processor_seconds
from .streams import draw


def measure(repository: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Tokens/s by the number of streams, and the exactness, of what is in `repository`."""
    began, chance = time.perf_counter(), random.Random(4)
    found: dict[str, Any] = {"decode": {}}
    with Serving(str(repository), openai=False) as serving, Clients(serving.grpc_url, options.processes) as clients:
        found["start_s"] = {"all": round(time.perf_counter() - began, 1)}
        work = psutil.Process(serving.process.pid)
        for count in options.sequences:
            clients.ask(_requests(chance, count, options.prompt, 16))
            rounds = [
                _round(clients, work, _requests(chance, count, options.prompt, options.answer))
                for _ in range(options.repetitions)
            ]
            found["decode"][count] = {name: [one[name] for one in rounds] for name in rounds[0]}
            _say({"streams": count} | found["decode"][count])
        found["exact"] = exactness(clients, options.together, options.prompt, options.answer)
        _say({"exact": found["exact"]})
        if options.sums:
            found["sums"] = sums(clients, options.sums)
            _say({"sums": found["sums"]})
    return found


def _requests(chance: random.Random, count: int, prompt: int, answer: int, temperature: float = 0.0) -> list[Asked]:
    return [Asked(text, answer, temperature, seed=n + 1) for n, text in enumerate(draw(chance, count, prompt))]


def _round(clients: Clients, server: psutil.Process, asked: Sequence[Asked]) -> dict[str, Any]:
    before, began = processor_seconds(server), time.monotonic()
    answers = clients.ask(asked)
    spent, took = processor_seconds(server), time.monotonic() - began
    if wrong := [one.tokens for one in answers if one.tokens != asked[0].tokens]:
        raise RuntimeError(f"answers have {wrong[:5]} tokens, {asked[0].tokens} were asked for")
    seconds = max(one.last for one in answers) - min(one.sent for one in answers)
    return {
        "tokens_per_s": round(sum(one.tokens for one in answers) / seconds, 1),
        "first_token_ms": round(1e3 * statistics.median(one.first - one.sent for one in answers), 1),
        "pieces_per_s": round(sum(one.pieces for one in answers) / seconds, 1),
        "prompt_tokens": max(one.prompt_tokens for one in answers),
        "processors": {name: round((spent[name] - before.get(name, 0.0)) / took, 2) for name in spent},
    }


def exactness(clients: Clients, together: int, prompt: int, answer: int) -> dict[str, Any]:
    """Equal texts, alone and together, greedy and drawn."""
    chance, found = random.Random(9), dict[str, Any]()
    for kind, temperature in (("greedy", 0.0), ("drawn", 0.8)):
        asked = _requests(chance, together, prompt, answer, temperature)
        whole = [dataclasses.replace(one, stream=False) for one in asked]
        alone = [
            (clients.ask([one]), clients.ask([again]), clients.ask([one]))
            for one, again in zip(asked[:4], whole[:4], strict=True)
        ]
        streamed, unstreamed, again = clients.ask(asked), clients.ask(whole), clients.ask(asked)
        found[kind] = {
            "alone": len(alone),
            "alone, stream = unstreamed": sum(_same(a, b) for a, b, _ in alone),
            "alone, again the same": sum(_same(a, c) for a, _, c in alone),
            "together": together,
            "together, stream = unstreamed": sum(_same([a], [b]) for a, b in zip(streamed, unstreamed, strict=True)),
            "together, again the same": sum(_same([a], [b]) for a, b in zip(streamed, again, strict=True)),
            "together, texts that differ from each other": len({one.text for one in streamed}),
        }
    return found


def _same(one: Sequence[Answered], other: Sequence[Answered]) -> bool:
    return bool(one[0].text) and one[0].text == other[0].text


def sums(clients: Clients, count: int) -> dict[str, Any]:
    """Of sums that r1-nano was never shown, asked for at once, streamed and not: how many are right, and in each language."""
    chosen = held_out(Recipe(), "add", count)
    asked = [Asked(_chat(one.messages), 760, ignore_eos=False, chat=True) for one in chosen]
    streamed = clients.ask(asked)
    whole = clients.ask([dataclasses.replace(one, stream=False) for one in asked])
    right = [is_right(one, answer.text.decode("utf-8", "replace")) for one, answer in zip(chosen, streamed, strict=True)]
    equal = [a.text == b.text for a, b in zip(streamed, whole, strict=True)]
    languages = {
        one: f"{sum(is_so for is_so, asked in zip(right, chosen, strict=True) if asked.language == one)} of {of}"
        for one, of in Counter(asked.language for asked in chosen).items()
    }
    return {"asked": count, "right": sum(right), "stream = unstreamed": sum(equal), "by language": languages}


def _chat(messages: Sequence[tuple[str, str]]) -> str:
    return json.dumps([{"role": role, "content": content} for role, content in messages])


def bare(engine: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of the bare loop, in a process of its own."""
    counts = [str(count) for count in options.sequences]
    command = [sys.executable, "-m", "bench.gpu.loop", str(engine), "--repetitions", str(options.repetitions)]
    command += ["--prompt", str(options.prompt), "--decode-only", "--sequences", *counts]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    figures: dict[str, Any] = json.loads(said.splitlines()[-1])
    return figures


def _say(figures: dict[str, Any]) -> None:
    print(json.dumps(figures), file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.ensemble", description=__doc__)
    parser.add_argument("engine", type=Path, help="folder of engine.json, in its repository")
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=512, help="tokens of each prompt, of which each is a letter")
    parser.add_argument("--answer", type=int, default=128, help="tokens of each answer")
    parser.add_argument("--together", type=int, default=64, help="streams at once whose texts are compared")
    parser.add_argument("--processes", type=int, default=max(1, min(8, (os.cpu_count() or 1) // 2)), help="of clients")
    parser.add_argument("--sums", type=int, default=0, help="ask so many sums: of r1-nano")
    parser.add_argument("--no-bare", action="store_true", help="without the bare loop")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    if not options.no_bare:
        found["bare"] = bare(options.engine, options)
        _say(found)
    found["ensemble"] = measure(options.engine.absolute().parents[1], options)
    if not options.no_bare:
        found["ensemble / bare"] = {
            count: round(
                statistics.median(one["tokens_per_s"]) / statistics.median(found["bare"]["decode"][str(count)]["tokens_per_s"]),
                3,
            )
            for count, one in found["ensemble"]["decode"].items()
            if str(count) in found["bare"]["decode"]
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
