"""Reads what servers say of themselves for Prometheus: the few figures that all servers of language models have."""

from __future__ import annotations

import re

# figure -> the names it has; vLLM's (and Triune's), llama.cpp's, SGLang's, TensorRT-LLM's on Triton
NAMES: dict[str, tuple[str, ...]] = {
    "running": ("vllm:num_requests_running", "llamacpp:requests_processing", "sglang:num_running_reqs"),
    "waiting": ("vllm:num_requests_waiting", "llamacpp:requests_deferred", "sglang:num_queue_reqs"),
    "slots_used": ('nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used"}',),
    "cache_usage": (
        "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc",
        "llamacpp:kv_cache_usage_ratio",
        "sglang:token_usage",
    ),
    "generated_tokens": ("vllm:generation_tokens_total", "llamacpp:tokens_predicted_total", "sglang:generation_tokens_total"),
    "prompt_tokens": ("vllm:prompt_tokens_total", "llamacpp:prompt_tokens_total", "sglang:prompt_tokens_total"),
    "queue_seconds": ("vllm:request_queue_time_seconds_sum",),
    "queued": ("vllm:request_queue_time_seconds_count",),
    "aborted": ("triune_requests_aborted_total",),
}
HOLDS = ("running", "waiting", "slots_used")  # 0 when nothing is held
_FIGURES = {name: figure for figure, names in NAMES.items() for name in names}
_LINE = re.compile(r"([a-zA-Z_:][\w:]*)(\{[^}]*\})?\s+(\S+)")


def parse_metrics(text: str) -> dict[str, float]:
    """The known figures in a metrics page; several lines of one are added up."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("#") or (parts := _LINE.match(line)) is None:
            continue
        name, labels, value = parts.groups()
        figure = _FIGURES.get(name) or _FIGURES.get(f"{name}{labels}")
        if figure is not None:
            try:
                found[figure] = found.get(figure, 0.0) + float(value)
            except ValueError:
                continue
    return found


def held(figures: dict[str, float]) -> float | None:
    """Requests that the server holds, None if it does not say."""
    known = [figures[name] for name in HOLDS if name in figures]
    return max(known) if known else None
