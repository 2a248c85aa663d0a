"""Whether vLLM can run a checkpoint, from its headers alone: said before anything is laid out. How it is split: `planned`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triune_runtime.manifest import CacheTensor

from ...errors import BuildError, option
from .precisions import FP8, PRECISIONS, STORED
from .widening import Weight, can_widen, widened_config, widened_weights

if TYPE_CHECKING:
    from ...checkpoint import Checkpoint
    from ...plan import BuildPlan

# model_type -> the class that vLLM 0.32 has for it (vllm/model_executor/models/registry.py)
ARCHITECTURES = {
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
# Numbers of a token's latent and its rotated part together, for which vLLM 0.24 and 0.32 have kernels of latent attention
# (vllm/model_executor/layers/attention/mla_attention.py): 256 + 64 and 512 + 64. Where there is no GPU, for the last alone.
# 0.32 names 512, too, which is of other architectures.
LATENT_SIZES = (320, 576)


def check(plan: BuildPlan, checkpoint: Checkpoint) -> None:
    """Make sure that vLLM can run `checkpoint` as `plan` says.

    Raises:
        BuildError: as `check_config`.
    """
    check_config(plan.model, checkpoint.config, plan.precision, eight_bits=_in_eight_bits(checkpoint))


def check_config(model: str, config: Mapping[str, Any], precision: str, *, eight_bits: bool) -> None:
    """Make sure that vLLM can run a model at a precision.

    Args:
        model: how it is named.
        eight_bits: its weights are stored so.

    Raises:
        BuildError: names what vLLM has no kernels for.
    """
    architecture_of(config)
    _check_latent(config)
    if eight_bits and not PRECISIONS[precision].eight_bits:
        raise BuildError(
            f"the checkpoint's weights are FP8, and vLLM keeps them so: {model} cannot be built at {precision}",
            f"choose {option('precision', 'fp8')}",
        )


def architecture_of(config: Mapping[str, Any]) -> str:
    """vLLM's class for a checkpoint.

    Raises:
        BuildError: it has none, or config.json names another.
    """
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise BuildError(
            f"target vllm runs {', '.join(sorted(ARCHITECTURES))}; config.json says model_type {kind!r}",
            "choose a model of one of these",
        )
    ours, theirs = ARCHITECTURES[kind], config.get("architectures") or []
    if theirs and ours not in theirs:
        raise BuildError(
            f"config.json says architectures {theirs!r}, and model_type {kind!r} is {ours}",
            "correct config.json: vLLM loads what it names",
        )
    return ours


def _check_latent(config: Mapping[str, Any]) -> None:
    if not _has_kernels(config) and not can_widen(config):
        known = ", ".join(map(str, LATENT_SIZES))
        latent, rotated = config.get("kv_lora_rank", 512), config.get("qk_rope_head_dim", 64)
        raise BuildError(
            f"a token's latent has {latent} + {rotated} = {latent + rotated} numbers (kv_lora_rank + qk_rope_head_dim), and "
            f"vLLM has kernels of latent attention for {known}",
            f"choose {option('target', 'cpu')}, or another model: those of DeepSeek's own sizes have 512 + 64",
        )


def _has_kernels(config: Mapping[str, Any]) -> bool:
    latent = int(config.get("kv_lora_rank", 512)) + int(config.get("qk_rope_head_dim", 64))
    return config.get("model_type") != "deepseek_v3" or latent in LATENT_SIZES


def fitting(config: Mapping[str, Any], weights: Mapping[str, Weight]) -> tuple[dict[str, Any], Mapping[str, Weight]] | None:
    """The model with sizes that vLLM has kernels for; None: it has them."""
    return None if _has_kernels(config) else (widened_config(config), widened_weights(config, weights))


def served_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """config.json of the model with sizes that vLLM has kernels for, if it can get them."""
    return config if _has_kernels(config) or not can_widen(config) else widened_config(config)


def quantization_of(precision: str, checkpoint: Checkpoint, *, converted: bool) -> str | None:
    """vLLM's name of how weights are quantized while they are loaded; None: they stay as they are, in eight bits or not."""
    return "fp8" if PRECISIONS[precision].eight_bits and (converted or not _in_eight_bits(checkpoint)) else None


def _in_eight_bits(checkpoint: Checkpoint) -> bool:
    return any(tensor.dtype == FP8 for tensor in checkpoint.weights.values())


def safetensors_folder(checkpoint: Checkpoint) -> Path | None:
    """The folder that vLLM can load the weights from as they lie; None: they are in another format, or in several folders."""
    weights = {tensor.path for tensor in checkpoint.weights.values()}
    folders = {path.absolute().parent for path in weights}
    plain = all(tensor.dtype in (*STORED.values(), FP8) for tensor in checkpoint.weights.values())
    if not plain or len(folders) != 1 or any(path.suffix != ".safetensors" for path in weights):
        return None
    return folders.pop()


def config_of(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """config.json for weights that were converted."""
    said = {key: value for key, value in config.items() if key not in ("quantization_config", "dtype")}
    return said | {"architectures": [architecture_of(config)], "torch_dtype": dtype}


def kept_cache(cache: tuple[CacheTensor, ...], precision: str) -> tuple[CacheTensor, ...]:
    """The cache with the type of its numbers that a precision asks for; windows are kept whole."""
    kind = PRECISIONS[precision].cache
    return tuple(CacheTensor(name=one.name, heads=one.heads, dim=one.dim, dtype=kind) for one in cache)
