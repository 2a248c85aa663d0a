"""vLLM's asynchronous engine alone, with the arguments that Triune gives it for an engine of target vllm.

    PYTHONPATH=runtime:. python -m bench.gpu.bare ENGINE                  tokens/s and latencies by the number of streams
    PYTHONPATH=runtime:. python -m bench.gpu.bare ENGINE --ask PROMPTS    greedy tokens after each prompt, one at a time

By the Python that has vLLM. Prints one JSON line last. Streams are those of `bench.gpu.distributed`; vLLM's statistics are off,
and there is no logits processor.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gc
import importlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from triune_runtime.manifest import EngineManifest
from triune_runtime.targets.vllm.plan import engine_arguments
from triune_runtime.targets.vllm.protocol import Add

from ..machine import gpu_memory_mib
from . import streams


@dataclasses.dataclass(frozen=True)
class Told:
    """An answer. See `streams.Heard`."""

    sent: float
    came: list[tuple[float, int]]
    tokens: list[int]


class Bare:
    """The engine, loaded."""

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: of engine.json.
        """
        began = time.perf_counter()
        vllm = importlib.import_module("vllm")
        platform = importlib.import_module("vllm.platforms").current_platform
        self._ours = importlib.import_module("triune_runtime.targets.vllm.engine")
        imported = time.perf_counter()
        self.manifest = EngineManifest.load(folder)
        arguments = engine_arguments(self.manifest, folder, prefix_caching=False)
        if platform.is_cpu():
            os.environ["TORCHDYNAMO_DISABLE"] = "1"
            arguments |= self._ours.on_cpu(arguments)
        chosen = vllm.AsyncEngineArgs(**arguments, disable_log_stats=True)
        self._llm = vllm.AsyncLLMEngine.from_engine_args(chosen)
        self.about = {
            "vllm": str(vllm.__version__),
            "start_s": {"import": round(imported - began, 1), "load": round(time.perf_counter() - imported, 1)},
            "kv_blocks": self._llm.vllm_config.cache_config.num_gpu_blocks,
            "block_tokens": self._llm.vllm_config.cache_config.block_size,
        }
        self._keys = 0

    async def ask(self, prompt: Sequence[int], answer: int) -> Told:
        """The greedy answer of `answer` tokens."""
        self._keys += 1
        params = {"max_tokens": answer, "temperature": 0.0, "ignore_eos": True}
        order = Add(key=self._keys, prompt=tuple(prompt), params=params)
        sent, came, tokens = time.monotonic(), list[tuple[float, int]](), list[int]()
        async for output in self._llm.generate(self._ours.prompt_of(order), self._ours.sampling_of(order), str(order.key)):
            if made := list(output.outputs[0].token_ids):
                came.append((time.monotonic(), len(made)))
                tokens += made
        return Told(sent, came, tokens)

    def close(self) -> None:
        self._llm.shutdown()


async def measure(bare: Bare, tokenizer: Tokenizer, options: argparse.Namespace) -> dict[str, Any]:
    """Figures by the number of streams."""
    runs: dict[int, list[list[Told]]] = {}
    longest = 0
    for count, texts, answer, counts in streams.rounds(options.sequences, options.repetitions, options.prompt, options.answer):
        prompts = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        heard = await asyncio.gather(*(bare.ask(prompt, answer) for prompt in prompts))
        if wrong := [len(one.tokens) for one in heard if len(one.tokens) != answer]:
            raise RuntimeError(f"answers have {wrong[:5]} tokens, {answer} were asked for")
        longest = max(longest, *map(len, prompts))
        if counts:
            runs.setdefault(count, []).append(heard)
    return {str(count): {"prompt_tokens": longest} | streams.figures(heard) for count, heard in runs.items()}


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """See the module."""
    bare = Bare(options.engine)
    gc.collect()
    gc.freeze()  # as vLLM's server does
    at_rest = gpu_memory_mib()
    if options.ask is not None:
        asked = json.loads(options.ask.read_text("utf-8"))
        told: dict[str, Any] = {"tokens": [(await bare.ask(prompt, options.answer)).tokens for prompt in asked["prompts"]]}
    else:
        tokenizer = Tokenizer.from_file(str(options.engine / "tokenizer.json"))
        told = {"decode": await measure(bare, tokenizer, options)}
    found = bare.about | told | {"gpu_memory_mib": {"at rest": at_rest, "after": gpu_memory_mib()}}
    bare.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.bare", description=__doc__)
    parser.add_argument("engine", type=Path, help="folder of engine.json, built with --target vllm")
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=512, help="tokens of each prompt, of which each is a letter")
    parser.add_argument("--answer", type=int, default=128, help="tokens of each answer")
    parser.add_argument(
        "--ask", type=Path, help='JSON file of {"prompts": [[id, ...], ...]}: tells their answers, measures nothing'
    )
    print(json.dumps(asyncio.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
