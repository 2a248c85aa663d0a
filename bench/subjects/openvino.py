"""OpenVINO GenAI's continuous batching pipeline, reading the same GGUF file."""

from __future__ import annotations

import time
from typing import Any

import openvino_genai as genai

from ..timing import Stream

_SEQUENCES = 16
_CACHE_GB = 1


class Subject:
    """See `bench.worker.Subject`. Steps the pipeline by hand, so that every token's time is seen."""

    def __init__(self, gguf: str) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.max_num_seqs = _SEQUENCES
        scheduler.cache_size = _CACHE_GB
        self._batched_tokens = scheduler.max_num_batched_tokens
        self._pipeline = genai.ContinuousBatchingPipeline(gguf, scheduler, "CPU")

    def about(self) -> dict[str, Any]:
        return {"openvino_genai": genai.__version__, "sequences": _SEQUENCES, "batched tokens": self._batched_tokens}

    def generate(self, prompts: list[str], tokens: int) -> list[Stream]:
        config = genai.GenerationConfig()
        config.max_new_tokens = tokens
        config.ignore_eos = True
        config.do_sample = False
        sent = time.perf_counter()
        handles = [self._pipeline.add_request(i, text, config) for i, text in enumerate(prompts)]
        arrivals: list[list[tuple[float, int]]] = [[] for _ in prompts]
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            now = time.perf_counter()
            for handle, seen in zip(handles, arrivals, strict=True):
                if handle.can_read():
                    seen.append((now, sum(len(output.generated_ids) for output in handle.read().values())))
        return [Stream(sent, tuple(a)) for a in arrivals]

    def close(self) -> None:
        del self._pipeline
