"""Time to the first token of requests that begin with the same long prefix, with the prefix cache and without.

The engine's own loop is measured, without a server around it: every request is sent when the one before has been answered
(`alone`), or all of them at once (`together`). With the cache the prefix is computed once; texts must be equal.

Run: python -m bench.prefix [--repository FOLDER] [--requests 64] [--prefix 1500]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from triune_runtime.manifest import EngineManifest
from triune_runtime.request import Chunk, Request, SamplingParams
from triune_runtime.starting import step_loop
from triune_runtime.targets import make_runner
from triune_runtime.text.tokenizer import load_token_bytes

from .machine import describe

REPOSITORY = Path("build/smollm2-135m/cpu/repository")
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
    manifest = EngineManifest.load(folder)
    loop = step_loop(manifest, make_runner(manifest, folder), load_token_bytes(folder, manifest), prefix_caching=caching)
    loop.start()
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=REPOSITORY)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--prefix", type=int, default=1500, help="tokens that all requests begin with")
    parser.add_argument("--tokens", type=int, default=8, help="of each answer")
    parser.add_argument("--without", type=int, default=8, help="requests that are measured without the cache, one at a time")
    options = parser.parse_args()
    folder = options.repository / "generate" / "1"
    asked = prompts(options.requests, options.prefix, EngineManifest.load(folder).vocab_size)
    record: dict[str, Any] = {"machine": describe(), "requests": options.requests, "prefix": options.prefix}
    table = Table("", "first token, ms: median", "worst", "without the cache", "times faster")
    equal = True
    for name, together in (("alone", False), ("together", True)):
        plain_asked = asked if together else asked[: options.without]
        plain, expected = serve(folder, plain_asked, caching=False, together=together, tokens=options.tokens)
        cached, found = serve(folder, asked, caching=True, together=together, tokens=options.tokens)
        equal = equal and found[: len(expected)] == expected
        later = cached if together else cached[1:]  # the first one computes the prefix
        median, without = statistics.median(later) * 1e3, statistics.median(plain) * 1e3
        record[name] = {"median_ms": median, "worst_ms": max(later) * 1e3, "without_ms": without, "faster": without / median}
        table.add_row(name, f"{median:.1f}", f"{max(later) * 1e3:.1f}", f"{without:.1f}", f"{without / median:.1f}")
    record["text_equal"] = equal
    Console().print(table)
    print(f"texts are {'equal' if equal else 'NOT EQUAL'}")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
