"""The same requests to vLLM's own loop in this process, if it can be imported: random weights of the same shape, greedy."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import time
from pathlib import Path
from typing import Any

from .figures import Run, measure_batches

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # its loop in this process, as ours is


class Peer:
    """vLLM with a model of some config.json."""

    def __init__(self, model: Path, most: int) -> None:
        """
        Raises:
            ImportError: vLLM is not installed.
        """
        began = time.perf_counter()
        vllm = importlib.import_module("vllm")

        imported = time.perf_counter()
        self._llm = vllm.LLM(
            model=str(model), load_format="dummy", skip_tokenizer_init=True, dtype="bfloat16", max_model_len=4096,
            max_num_seqs=most, gpu_memory_utilization=0.8, enable_prefix_caching=False, seed=0,
        )  # fmt: skip
        self._sampling = vllm.SamplingParams
        self.start_s = {"import": imported - began, "load": time.perf_counter() - imported}
        self._vocab_size = self._llm.llm_engine.vllm_config.model_config.get_vocab_size()
        self._rng, self._keys = random.Random(1234), 0

    def batch(self, count: int, prompt: int, answer: int) -> Run:
        """Send `count` requests at once and wait for all answers."""
        engine, params = (
            self._llm.llm_engine,
            self._sampling(temperature=0.0, max_tokens=answer, ignore_eos=True, detokenize=False),
        )
        prompts = [[self._rng.randrange(self._vocab_size) for _ in range(prompt)] for _ in range(count)]
        began = last = time.perf_counter()
        for tokens in prompts:
            self._keys += 1
            engine.add_request(str(self._keys), {"prompt_token_ids": tokens}, params)
        first, steps = dict[str, float](), list[float]()
        while engine.has_unfinished_requests():
            made = engine.step()
            now = time.perf_counter()
            for output in made:
                first.setdefault(output.request_id, now - began)
            if len(made) == count:
                steps.append(now - last)
            last = now
        return Run(last - began, count * answer, list(first.values()), steps)


def measure(model: Path, counts: list[int], repetitions: int) -> dict[str, Any]:
    """The figures of `bench.gpu.loop`, but for the mixed load."""
    peer = Peer(model, max(counts))
    return {"start_s": peer.start_s} | measure_batches(peer.batch, counts, repetitions)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.peer", description=__doc__)
    parser.add_argument("model", type=Path, help="folder of config.json")
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    print(json.dumps(measure(options.model, options.sequences, options.repetitions)))


if __name__ == "__main__":
    main()
