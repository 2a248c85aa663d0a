"""vLLM's asynchronous engine, as `host` uses it: the one file that speaks to it. Imported in its process alone.

What is used of it is what it calls its own interface (`vllm.AsyncEngineArgs`, `AsyncLLMEngine`, `SamplingParams`), and of the
rest: a list of forbidden token ids for which it has no name, a logger of steps, and the logits processors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from vllm import AsyncEngineArgs, AsyncLLMEngine, SamplingParams
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.metrics.loggers import StatLoggerBase

from .guides import EXTRA
from .protocol import Add, Load

_GUIDES = "triune_runtime.targets.vllm.guides_v{}:Guides"
RUNNER = "VLLM_USE_V2_MODEL_RUNNER"  # of the environment
_NO_COMPILER = "TORCHDYNAMO_DISABLE"  # the first log probabilities would wait for a C++ compiler, and all others with them
Made = Callable[[int, Load | None], None]


def make(arguments: Mapping[str, Any], made: Made) -> Any:
    """The engine.

    Args:
        made: told of each step: which copy of the model has made it, and how full that is.
    """
    return AsyncLLMEngine.from_engine_args(_chosen(arguments), stat_loggers=[lambda config, copy: _Steps(made, copy)])


def serve_part(arguments: Mapping[str, Any]) -> None:
    """Be the workers of one of several machines, but for the first, until one of them ends."""
    from vllm.v1.executor.multiproc_executor import MultiprocExecutor

    executor = MultiprocExecutor(_chosen(arguments).create_engine_config(headless=True), monitor_workers=False)
    executor.start_worker_monitor(inline=True)


def _chosen(arguments: Mapping[str, Any]) -> AsyncEngineArgs:
    """The arguments for this platform; for the processes that are started the environment says more."""
    runner = 2 if os.environ.setdefault(RUNNER, "0") == "1" else 1
    chosen = dict(arguments) | {"logits_processors": [_GUIDES.format(runner)], "disable_log_stats": True}
    if current_platform.is_cpu():
        os.environ[_NO_COMPILER] = "1"
        chosen |= on_cpu(arguments)
    return AsyncEngineArgs(**chosen)


def on_cpu(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What differs where there is no GPU.

    vLLM's own kernels for the CPU give wrong numbers for DeepSeek's architecture, without a word: none is used. Nothing is
    compiled, as there may be no compiler; but where layers are shared out, the run that would be compiled also makes what
    passes between them.
    """
    stages = int(arguments.get("pipeline_parallel_size", 1))
    compilation: dict[str, Any] = {"custom_ops": ["none"]}
    if stages > 1:
        compilation |= {"mode": 2, "backend": "eager"}
    return {"enforce_eager": stages == 1, "compilation_config": compilation, "distributed_executor_backend": "mp"}


def prompt_of(order: Add) -> Any:
    """A prompt of ids, rendered: vLLM looks for no text."""
    prompt: dict[str, Any] = {"type": "token", "prompt_token_ids": list(order.prompt)}
    return prompt | ({"cache_salt": order.cache_salt} if order.cache_salt else {})


def sampling_of(order: Add) -> Any:
    """vLLM's parameters of a request."""
    given = dict(order.params)
    bad_words = given.pop("bad_words", None)
    if "logit_bias" in given:
        given["logit_bias"] = {int(token): bias for token, bias in given["logit_bias"].items()}
    extra = {EXTRA: order.extra} if order.extra else None
    params = SamplingParams(detokenize=False, output_kind=RequestOutputKind.DELTA, extra_args=extra, **given)
    if bad_words:
        params._bad_words_token_ids = [list(word) for word in bad_words]  # what its tokenizer would fill in
    return params


class _Steps(StatLoggerBase):  # type: ignore[misc]  # whose package is in vLLM's environment alone
    """Hears of every step of one copy of the model."""

    def __init__(self, made: Made, copy: int) -> None:
        self._made, self._copy = made, copy

    def record(self, scheduler_stats: Any, iteration_stats: Any, *others: Any, **named: Any) -> None:
        stats = scheduler_stats
        load = None if stats is None else Load(stats.num_running_reqs, stats.num_waiting_reqs, float(stats.kv_cache_usage))
        self._made(self._copy, load)

    def log_engine_initialized(self) -> None: ...
