"""What config.json's `quantization_config` says of FP8 weights, in the words of each tool that writes it. Reads no tensor."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import BuildError, quoted

KEY = "quantization_config"
MODELOPT_FP8 = ("FP8", "FP8_PER_CHANNEL_PER_TOKEN")


@dataclass(frozen=True)
class Grid:
    """What shares a scale: blocks of [rows, columns]; None: rows, all or 128 by 128, as the scales' shape tells."""

    block: tuple[int, int] | None


# Values that are read; None may stand for every key. Keys of `_HARMLESS` may say anything: which matrices are FP8 the tensors
# tell themselves, and activations and the KV cache are computed as floats whatever they were meant to be.
_FINE_GRAINED: Mapping[str, Collection[Any]] = {
    "fmt": ("e4m3", "float8_e4m3fn"),
    "activation_scheme": ("dynamic", "static"),
    "dequantize": (False, True),  # when transformers loads it
    "expert_dtype": ("fp8",),
    "scale_fmt": ("float", "ue8m0"),
    "weight_per_tensor": (False, True),
    "act_per_tensor": (False, True),
    "is_checkpoint_fp8_serialized": (True,),
    "weights_not_scaled": (False,),
}
_HARMLESS = frozenset(
    """
    quant_method weight_block_size modules_to_not_convert modules_to_convert ignored_layers ignored_modules kv_cache_scheme
    kv_cache_quant_method activation_scale_ub ignore quant_library
    """.split()
)
# Of activations and of the KV cache, for servers that quantize those: here both are computed as floats.
OF_ACTIVATIONS = tuple(
    f".{name}"
    for name in "input_scale output_scale activation_scale q_scale k_scale v_scale kv_scale prob_output_scale".split()
)
_HINT = "take the model's BF16, F16 or F32 checkpoint, its GPTQ, AWQ or FP8 one, or a GGUF file"


def grid_of(config: Mapping[str, Any]) -> Grid | None:
    """How scales are laid over FP8 matrices; None for a checkpoint that is not quantized. Its method is of `FLOAT_METHODS`.

    Raises:
        BuildError: it is quantized otherwise; names what is not read.
    """
    raw = config.get(KEY)
    if raw is None:
        return None
    if not isinstance(raw, dict):
        raise BuildError(f"{KEY} in config.json is {quoted(raw)}, not an object", "fetch config.json again")
    return _METHODS[raw["quant_method"]](raw)


def _fine_grained(raw: Mapping[str, Any]) -> Grid:
    """transformers' and vLLM's `fp8`, DeepSeek's among them, and `fbgemm_fp8`.

    A missing block size means 128 by 128 to transformers and whole matrices to vLLM.
    """
    strange = [f"{key} = {quoted(raw[key])} (only {' or '.join(map(repr, values))} is read)"
               for key, values in _FINE_GRAINED.items() if not among(raw.get(key), values)]  # fmt: skip
    unknown = sorted(key for key in raw if key not in _FINE_GRAINED and key not in _HARMLESS and raw[key] is not None)
    strange += [f"{key} = {quoted(raw[key])} (not understood)" for key in unknown]
    block = raw.get("weight_block_size")
    if block is not None and not _is_block(block):
        strange.append(f"weight_block_size = {quoted(block)} (two numbers are expected)")
    if strange:
        raise refusal(strange)
    return Grid(None if block is None else (block[0], block[1]))


def _compressed(raw: Mapping[str, Any]) -> Grid:
    """compressed-tensors, as llm-compressor writes it: the same form for all groups of layers."""
    formats = ("float-quantized", "naive-quantized")
    strange = [] if among(raw.get("format"), formats) else [f"format = {quoted(raw['format'])} (only {formats[0]!r} is read)"]
    strange += sparsity_problems(raw)
    groups = raw.get("config_groups")
    listed = list(groups.values()) if isinstance(groups, dict) else []
    weights: list[Any] = [group.get("weights") for group in listed if isinstance(group, dict)]
    if not weights or not all(isinstance(entry, dict) for entry in weights):
        strange.append(f"config_groups = {quoted(groups)} (groups with weights are expected)")
        raise refusal(strange)
    blocks = set()
    for entry in weights:
        wanted = {"num_bits": (8,), "type": ("float",), "symmetric": (True,), "dynamic": (False,), "actorder": (False,),
                  "strategy": ("tensor", "channel", "block", "group")}  # fmt: skip
        strange += [f"weights with {key} = {quoted(entry[key])} (only {' or '.join(map(repr, values))} is read)"
                    for key, values in wanted.items() if not among(entry.get(key), values)]  # fmt: skip
        strategy, group = entry.get("strategy"), entry.get("group_size")
        block: Any = None
        words = ""
        if strategy == "group":
            block = [1, group]
            words = f"group_size = {quoted(group)} (a number is expected)"
        elif strategy == "block":
            block = entry.get("block_structure")
            words = f"block_structure = {quoted(block)} (two numbers are expected)"
        if strategy in ("group", "block") and not _is_block(block):
            strange.append(f"weights with {words}")
        elif not strange:
            blocks.add(None if block is None else (block[0], block[1]))
    if len(blocks) > 1:
        strange.append(f"groups of weights with different blocks: {quoted(sorted(map(str, blocks)))}")
    if strange:
        raise refusal(strange)
    return Grid(blocks.pop())


def sparsity_problems(raw: Mapping[str, Any]) -> list[str]:
    """What compressed-tensors may say of all weights and is not read: sparse ones, and such whose inputs are rotated."""
    sparse, rotated = raw.get("sparsity_config"), raw.get("transform_config")
    is_dense = not sparse or (isinstance(sparse, dict) and among(sparse.get("format"), ("dense",)))
    problems = [] if is_dense else [f"sparsity_config = {quoted(sparse)} (only dense weights are read)"]
    return problems + ([f"transform_config = {quoted(rotated)} (not read)"] if rotated else [])


def _model_optimizer(raw: Mapping[str, Any]) -> Grid:
    """TensorRT Model Optimizer's FP8: one scale a matrix."""
    if raw.get("quant_algo") not in MODELOPT_FP8:
        raise refusal([f"quant_algo = {quoted(raw.get('quant_algo'))} (only 'FP8' is read)"])
    return Grid(None)


_METHODS: Mapping[str, Callable[[Mapping[str, Any]], Grid]] = {
    "fp8": _fine_grained,
    "fbgemm_fp8": _fine_grained,
    "compressed-tensors": _compressed,
    "modelopt": _model_optimizer,
}
FLOAT_METHODS = tuple(_METHODS)


def among(value: Any, values: Collection[Any]) -> bool:
    return value is None or any(type(value) is type(known) and value == known for known in values)


def _is_block(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(n) is int and 0 < n < 1 << 31 for n in value)


def refusal(strange: list[str]) -> BuildError:
    return BuildError(f"the checkpoint is quantized in a way that is not read: {KEY} has {'; '.join(strange)}", _HINT)
