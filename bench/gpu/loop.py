"""An engine's bare loop: steps, KV memory and sampling, without a server. Random prompts, greedy, no end of text."""

from __future__ import annotations

import argparse
import json
import logging
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from triune_runtime.manifest import EngineManifest
from triune_runtime.request import Chunk, Request, SamplingParams
from triune_runtime.runner import Runner
from triune_runtime.starting import keep_loaded, step_loop
from triune_runtime.targets import make_runner
from triune_runtime.text.vocabulary import TokenBytes

from .figures import Run, measure_batches


class Loop:
    """An engine that is loaded."""

    def __init__(
        self,
        folder: Path,
        make: Callable[[EngineManifest, Path], Runner] | None = None,
        *,
        prefix_caching: bool = False,
    ) -> None:
        """
        Args:
            folder: of engine.json.
            make: its runner; by default the target's own.
        """
        began = time.perf_counter()
        manifest = EngineManifest.load(folder)
        runner = (make or make_runner)(manifest, folder)
        loaded = time.perf_counter()
        self.steps = step_loop(manifest, runner, TokenBytes([b" a"] * manifest.vocab_size), prefix_caching=prefix_caching)
        self.steps.start()
        self.start_s = {"load": loaded - began, "warm up": time.perf_counter() - loaded}
        keep_loaded()  # as the server does
        self.manifest, self._rng, self._keys = manifest, random.Random(1234), 0

    def request(self, prompt: int, answer: int) -> Request:
        """One with fresh random tokens."""
        self._keys += 1
        tokens = tuple(self._rng.randrange(2, self.manifest.vocab_size) for _ in range(prompt))
        params = SamplingParams(max_tokens=answer, ignore_eos=True)
        return Request(key=self._keys, prompt=tokens, params=params, stream=True)

    def batch(self, count: int, prompt: int, answer: int) -> Run:
        """Send `count` requests at once and wait for all answers."""
        requests = [self.request(prompt, answer) for _ in range(count)]
        return self.serve([(0.0, request) for request in requests])

    def serve(self, arrivals: list[tuple[float, Request]]) -> Run:
        """Send each request at its time, in seconds from the beginning, and wait for all answers."""
        waiting, began = sorted(arrivals, key=lambda pair: pair[0]), time.perf_counter()
        sent, first, tokens, steps, last = dict[int, float](), dict[int, float](), 0, list[float](), began
        while waiting or self.steps.has_work:
            now = time.perf_counter()
            while waiting and now - began >= waiting[0][0]:
                _, request = waiting.pop(0)
                sent[request.key] = now
                self.steps.submit(request)
            got = 0
            for event in self.steps.step():
                if not isinstance(event.item, Chunk):
                    raise RuntimeError(f"a request failed: {event.item}")
                if event.item.new_tokens and event.key not in first:
                    first[event.key] = time.perf_counter()
                got += event.item.new_tokens
            now = time.perf_counter()
            if got == len(arrivals):
                steps.append(now - last)
            tokens, last = tokens + got, now
        return Run(last - began, tokens, [first[key] - sent[key] for key in sent], steps)

    def close(self) -> None:
        self.steps.close()


def measure(
    folder: Path, counts: list[int], repetitions: int, *, prompt: int = 512, decode_only: bool = False
) -> dict[str, Any]:
    """All figures of the engine in `folder`.

    Args:
        prompt: tokens of each prompt.
        decode_only: none of prompts of 2,048 tokens and of the mixed load.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    loop = Loop(folder)
    found: dict[str, Any] = {"start_s": loop.start_s, "blocks": loop.steps.snapshot().kv.blocks}
    taken = [count for count in counts if count <= loop.manifest.limits.max_sequences]
    found |= measure_batches(loop.batch, taken, repetitions, prompt=prompt, decode_only=decode_only)
    if decode_only:
        loop.close()
        return found
    chance = random.Random(5)
    mixed = [(n * 0.01, loop.request(chance.randint(50, 1500), chance.randint(20, 200))) for n in range(200)]
    run = loop.serve(mixed)
    found["mixed"] = {
        "tokens_per_s": round(run.tokens / run.seconds, 1),
        "first_token_ms": round(1e3 * statistics.median(run.first_s), 1),
    }
    loop.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.loop", description=__doc__)
    parser.add_argument("engine", type=Path, help="folder of engine.json")
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=512, help="tokens of each prompt")
    parser.add_argument("--decode-only", action="store_true", help="without prompts of 2,048 tokens and the mixed load")
    options = parser.parse_args()
    asked = {"prompt": options.prompt, "decode_only": options.decode_only}
    print(json.dumps(measure(options.engine, options.sequences, options.repetitions, **asked)))


if __name__ == "__main__":
    main()
