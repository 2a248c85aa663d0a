"""The engine. One step for all requests at a time; told to the stat loggers as vLLM does."""

from __future__ import annotations

import asyncio
import json
import sys
import zlib
from collections.abc import AsyncIterator, Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from .sampling_params import DIES, ENDS, HANGS, REFUSES, RequestOutputKind, SamplingParams
from .v1.engine.exceptions import EngineDeadError

STEP_S = 0.002
BLOCK = 16
_ARGUMENTS = frozenset(
    """
    model skip_tokenizer_init generation_config load_format dtype quantization kv_cache_dtype kv_cache_memory_bytes
    max_model_len max_num_seqs max_num_batched_tokens enable_prefix_caching max_logprobs tensor_parallel_size
    pipeline_parallel_size data_parallel_size enable_expert_parallel seed logits_processors disable_log_stats enforce_eager
    compilation_config distributed_executor_backend nnodes node_rank master_addr master_port
    """.split()
)


class AsyncEngineArgs:
    def __init__(self, **arguments: Any) -> None:
        unknown = arguments.keys() - _ARGUMENTS
        if unknown:
            raise TypeError(f"unexpected arguments {unknown}")
        self.given = arguments


class Row:
    """What is used of a tensor of logits."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.shape = values.shape

    def add_(self, other: Row) -> None:
        self.values += other.values

    def new_tensor(self, values: Any) -> Row:
        return Row(np.asarray(values, np.float32))


class Batch(dict[int, Row]):
    """Rows of logits by their places; of requests that are not at their turn any."""

    def __missing__(self, place: int) -> Row:
        return Row(np.zeros_like(next(iter(self.values())).values))


class AsyncLLMEngine:
    """See vLLM's AsyncLLM."""

    def __init__(self, given: dict[str, Any], loggers: Sequence[Any]) -> None:
        config = json.loads((Path(given["model"]) / "config.json").read_text())
        if why := config.get("double_fails"):
            print(f"(EngineCore pid=1) ERROR 01-01 00:00:00 [core.py:1] {why}", file=sys.stderr, flush=True)
            raise RuntimeError(
                "Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"
            )
        self._vocabulary = int(config["vocab_size"])
        self.vllm_config = SimpleNamespace(cache_config=SimpleNamespace(num_gpu_blocks=64, block_size=BLOCK))
        self.model_config = SimpleNamespace(get_vocab_size=lambda: self._vocabulary)
        self.errored = False
        self._most = int(given["max_num_seqs"])
        self._loggers = [make(self.vllm_config, 0) for make in loggers]
        self._guides = []
        for name in given["logits_processors"]:
            module, _, kind = name.partition(":")
            self._guides.append(getattr(import_module(module), kind)(self.vllm_config, None, False))
        self._running = 0
        self._waiting = 0
        self._free = asyncio.Semaphore(self._most)
        self._seen: set[tuple[str, tuple[int, ...]]] = set()
        self._places = iter(range(1 << 30))

    @classmethod
    def from_engine_args(cls, arguments: AsyncEngineArgs, stat_loggers: Sequence[Any]) -> AsyncLLMEngine:
        return cls(arguments.given, stat_loggers)

    def shutdown(self) -> None: ...

    async def generate(self, prompt: dict[str, Any], params: SamplingParams, request_id: str) -> AsyncIterator[Any]:
        assert prompt["type"] == "token" and not params.detokenize and params.output_kind is RequestOutputKind.DELTA
        ids = list(prompt["prompt_token_ids"])
        if self.errored:
            raise EngineDeadError
        if ids[0] == REFUSES:
            raise ValueError("it does not please")
        self._waiting += 1
        await self._free.acquire()
        self._waiting -= 1
        self._running += 1
        place = next(self._places)
        output: list[int] = []
        try:
            for guide in self._guides:
                guide.update_state(SimpleNamespace(removed=[], added=[(place, params, ids, output)], moved=[]))
            cached = self._cached(ids, str(prompt.get("cache_salt", "")))
            while True:
                await asyncio.sleep(3600 if ids[0] == HANGS else STEP_S)
                if ids[0] == DIES and len(output) == 3:
                    self.errored = True
                if self.errored:
                    raise EngineDeadError
                output.append(token := self._next(place, ids, output, params))
                stops = token in (params.stop_token_ids or ()) and len(output) > params.min_tokens
                ending = (
                    "error" if ids[0] == ENDS else "stop" if stops else "length" if len(output) == params.max_tokens else None
                )
                self._tell()
                yield self._output(ids, output, token, params, ending, cached)
                if ending:
                    return
        finally:
            self._running -= 1
            self._free.release()
            for guide in self._guides:
                guide.update_state(SimpleNamespace(removed=[place], added=[], moved=[]))
            self._tell()

    def _next(self, place: int, ids: list[int], output: list[int], params: SamplingParams) -> int:
        seed = zlib.crc32(repr((ids, output, params.seed if params.temperature else None)).encode())
        row = Row(np.random.default_rng(seed).standard_normal(self._vocabulary, np.float32))
        for token, bias in (params.logit_bias or {}).items():
            row.values[token] += bias
        for word in params._bad_words_token_ids or ():
            if output[len(output) - len(word) + 1 :] == word[:-1]:
                row.values[word[-1]] = -np.inf
        for guide in self._guides:
            guide.apply(Batch({place: row}))
        if len(output) < params.min_tokens:
            row.values[params.stop_token_ids or []] = -np.inf
        return int(row.values.argmax())

    def _cached(self, ids: list[int], salt: str) -> int:
        whole = [tuple(ids[:stop]) for stop in range(BLOCK, len(ids), BLOCK)]
        found = next((len(one) for one in reversed(whole) if (salt, one) in self._seen), 0)
        self._seen |= {(salt, one) for one in whole}
        return found

    def _output(
        self, ids: list[int], output: list[int], token: int, params: SamplingParams, ending: str | None, cached: int
    ) -> Any:
        def row(chosen: int, wanted: int) -> dict[int, Any]:
            best = {
                other: SimpleNamespace(logprob=-0.5 - rank, rank=rank) for rank, other in enumerate(range(3, 3 + wanted), 1)
            }
            return best | {chosen: SimpleNamespace(logprob=-0.25, rank=9)}

        made = SimpleNamespace(
            token_ids=[token], finish_reason=ending, logprobs=None if params.logprobs is None else [row(token, params.logprobs)]
        )
        wanted = params.prompt_logprobs
        scores = None if wanted is None else [None, *(row(one, wanted) for one in ids[1:])]
        return SimpleNamespace(
            outputs=[made], metrics=SimpleNamespace(queued_ts=1.0, scheduled_ts=1.0), num_cached_tokens=cached,
            prompt_token_ids=ids, prompt_logprobs=scores,
        )  # fmt: skip

    def _tell(self) -> None:
        usage = min(1.0, self._running / self._most)
        stats = SimpleNamespace(num_running_reqs=self._running, num_waiting_reqs=self._waiting, kv_cache_usage=usage)
        for logger in self._loggers:
            logger.record(stats, None, engine_idx=0)
