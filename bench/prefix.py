"""Time to the first token of requests that begin with the same long prefix, with the prefix cache and without.

The engine's own loop is measured, without a server around it: every request is sent when the one before has been answered
(`alone`), or all of them at once (`together`). With the cache the prefix is computed once; greedy texts must be equal. An
engine for GPUs computes a prompt's end by other kernels than the whole prompt, so where two tokens are all but equally likely,
either may come: of the first place where two texts differ, how much more likely the one is than the other is measured, in nats.

Run: python -m bench.prefix [--engine FOLDER] [--requests 64] [--prefix 1500]
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from triune_runtime.generation.loop import StepLoop
from triune_runtime.machine import this_machine
from triune_runtime.manifest import EngineManifest
from triune_runtime.request import Chunk, Request, SamplingParams
from triune_runtime.starting import keep_loaded, step_loop
from triune_runtime.targets import make_runner
from triune_runtime.text.tokenizer import load_token_bytes

from .machine import describe

ENGINE = Path("build/smollm2-135m/cpu/repository/generate/1")
# Nats between two tokens that a rounding may swap: two steps of bfloat16 where logits lie, between 8 and 16.
_CLOSE = 0.125
_LOOKED_AT = 8  # texts that differ, of which the place is looked at
_QUESTION = 24  # tokens that each request has of its own
_FIRST_TOKEN = "vllm:time_to_first_token_seconds"


def prompts(count: int, prefix: int, vocab_size: int) -> list[tuple[int, ...]]:
    """Prompts of one prefix and ends of their own."""
    rng = random.Random(11)
    shared = [rng.randrange(vocab_size) for _ in range(prefix)]
    return [tuple(shared + [rng.randrange(vocab_size) for _ in range(_QUESTION)]) for _ in range(count)]


def serve(
    folder: Path, asked: list[tuple[int, ...]], *, caching: bool, together: bool, tokens: int
) -> tuple[list[float], list[Any]]:
    """Seconds to each first token in turn, and the tokens of each answer.

    Args:
        tokens: of an answer.
    """
    loop = started(folder, caching=caching)
    params = SamplingParams(max_tokens=tokens, ignore_eos=True)
    answers: list[list[int]] = [[] for _ in asked]

    def finish() -> None:
        while loop.has_work:
            for event in loop.step():
                assert isinstance(event.item, Chunk), event.item
                answers[event.key] += event.item.cut.token_ids

    for key, prompt in enumerate(asked):
        loop.submit(Request(key=key, prompt=prompt, params=params))
        if not together:
            finish()
    finish()
    (first,) = (update.observations for update in loop.metrics.drain() if update.family == _FIRST_TOKEN)
    loop.close()
    return list(first), answers


def started(folder: Path, *, caching: bool) -> StepLoop:
    manifest = EngineManifest.load(folder)
    loop = step_loop(manifest, make_runner(manifest, folder), load_token_bytes(folder, manifest), prefix_caching=caching)
    loop.start()
    gc.unfreeze()  # engines that are closed go
    keep_loaded()  # as the server does
    return loop


def nats_between(folder: Path, places: list[tuple[tuple[int, ...], int, int]]) -> list[float]:
    """How far apart the log probabilities of two tokens are, behind a prompt: what a rounding could turn around.

    Args:
        places: prompt and tokens.
    """
    loop, found = started(folder, caching=False), list[float]()
    for key, (prompt, one, other) in enumerate(places):
        loop.submit(Request(key=key, prompt=prompt, params=SamplingParams(max_tokens=1, ignore_eos=True, logprobs=20)))
        entries = []
        while loop.has_work:
            entries += [entry for event in loop.step() if isinstance(event.item, Chunk) for entry in event.item.logprobs]
        known = dict(entries[0].top)
        found.append(abs(known[one] - known[other]) if one in known and other in known else float("inf"))
    loop.close()
    return found


def compared(folder: Path, asked: list[tuple[int, ...]], expected: list[Any], found: list[Any]) -> dict[str, Any]:
    """Which texts differ, and by what likelihood at the first place where they do."""
    places = []
    for prompt, one, other in zip(asked, expected, found, strict=False):
        at = next((n for n, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), None)
        if at is not None:
            places.append(((*prompt, *one[:at]), one[at], other[at]))
    nats = nats_between(folder, places[:_LOOKED_AT]) if places else []
    return {"texts": len(expected), "different": len(places), "nats": [round(n, 4) for n in nats]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", type=Path, default=ENGINE, help="folder of engine.json")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--prefix", type=int, default=1500, help="tokens that all requests begin with")
    parser.add_argument("--tokens", type=int, default=8, help="of each answer")
    parser.add_argument("--without", type=int, default=8, help="requests that are measured without the cache, one at a time")
    options = parser.parse_args()
    folder, gpus = options.engine, this_machine().gpus
    asked = prompts(options.requests, options.prefix, EngineManifest.load(folder).vocab_size)
    about = {"machine": describe(), "gpu": str(gpus[0]) if gpus else "none", "engine": EngineManifest.load(folder).target}
    record: dict[str, Any] = {**about, "requests": options.requests, "prefix": options.prefix}
    table = Table("", "first token, ms: median", "worst", "without the cache", "times faster")
    different, nats = 0, list[float]()
    for name, together in (("alone", False), ("together", True)):
        plain_asked = asked if together else asked[: options.without]
        plain, expected = serve(folder, plain_asked, caching=False, together=together, tokens=options.tokens)
        cached, found = serve(folder, asked, caching=True, together=together, tokens=options.tokens)
        texts = compared(folder, asked, expected, found)
        different, nats = different + texts["different"], nats + texts["nats"]
        later = cached if together else cached[1:]  # the first one computes the prefix
        median, without = statistics.median(later) * 1e3, statistics.median(plain) * 1e3
        record[name] = {
            "median_ms": median,
            "worst_ms": max(later) * 1e3,
            "without_ms": without,
            "faster": without / median,
            **texts,
        }
        table.add_row(name, f"{median:.1f}", f"{max(later) * 1e3:.1f}", f"{without:.1f}", f"{without / median:.1f}")
    record["text_equal"] = not different
    Console().print(table)
    if not different:
        print("texts are equal")
    elif max(nats) <= _CLOSE:
        print(f"{different} texts differ, where two tokens are all but equally likely: up to {max(nats):.4f} nats apart")
    else:
        print(f"{different} texts are NOT EQUAL: {nats} nats")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
