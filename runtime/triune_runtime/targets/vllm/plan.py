"""What engine.json says of an engine that vLLM runs: where its checkpoint lies, how it is split, how its numbers are kept."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ManifestError
from ...manifest import EngineManifest

MOST_LOGPROBS = 20  # of the best tokens at a position, as requests may ask for


@dataclass(frozen=True, kw_only=True)
class VllmPlan:
    """The manifest's `plan`.

    Attributes:
        checkpoint: folder of config.json and the weights; empty: the engine's own, which holds what was converted.
        dtype: of the arithmetic, float32, bfloat16 or float16.
        quantization: vLLM's name of how weights are quantized while they are loaded; None: they stay as they are stored.
        kv_dtype: vLLM's name of what keys and values are kept in; auto: as the arithmetic.
        kv_bytes: of KV memory on each device; None: what vLLM finds free.
        tensor_parallel: devices that share each layer.
        pipeline_parallel: groups of layers, each on devices of its own.
        data_parallel: copies of all that.
        expert_parallel: devices hold whole experts, not parts of all.
        nodes: machines that the devices are in.
    """

    checkpoint: str
    dtype: str
    quantization: str | None = None
    kv_dtype: str = "auto"
    kv_bytes: int | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    expert_parallel: bool = False
    nodes: int = 1

    @property
    def devices(self) -> int:
        """That compute, and so processes, on each machine."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel // self.nodes

    @classmethod
    def of(cls, manifest: EngineManifest) -> VllmPlan:
        """What a manifest says.

        Raises:
            ManifestError: it is of another target, or of another version.
        """
        try:
            return cls(**manifest.plan)
        except TypeError as error:
            raise ManifestError(f"the engine's plan does not fit this runtime: {error}", "build the engine again") from None

    def folder(self, engine: Path) -> Path:
        """Where vLLM finds config.json and the weights of the engine in the folder `engine`."""
        return Path(self.checkpoint) if self.checkpoint else engine

    def to_json(self) -> dict[str, Any]:
        """As the manifest has it."""
        return dataclasses.asdict(self)


def engine_arguments(manifest: EngineManifest, engine: Path, *, prefix_caching: bool) -> dict[str, Any]:
    """vLLM's arguments for the engine in the folder `engine`, on any platform.

    Its tokenizer is not loaded: ids go in and come out. generation_config.json is not read: defaults are Triune's own.
    """
    plan, limits = VllmPlan.of(manifest), manifest.limits
    arguments = {
        "model": str(plan.folder(engine)),
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "load_format": "safetensors",
        "dtype": plan.dtype,
        "quantization": plan.quantization,
        "kv_cache_dtype": plan.kv_dtype,
        "kv_cache_memory_bytes": plan.kv_bytes,
        "max_model_len": limits.max_length,
        "max_num_seqs": limits.max_sequences,
        "max_num_batched_tokens": max(limits.step_tokens, limits.max_sequences),
        "enable_prefix_caching": prefix_caching,
        "max_logprobs": MOST_LOGPROBS,
        "tensor_parallel_size": plan.tensor_parallel,
        "pipeline_parallel_size": plan.pipeline_parallel,
        "data_parallel_size": plan.data_parallel,
        "enable_expert_parallel": plan.expert_parallel,
        "distributed_executor_backend": "mp" if plan.nodes > 1 else None,
        "seed": 0,
    }
    return {name: value for name, value in arguments.items() if value is not None}
