"""compressed-tensors checkpoints with weights of whole numbers, as llm-compressor writes them. Reads no weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import BuildError, quoted
from .fp8_config import OF_ACTIVATIONS, among, refusal, sparsity_problems
from .grouped import INCOMPLETE, GroupedTensor, group_size, grouped
from .packed_integers import PackedIntegers
from .tensor import Tensor

_FORMATS = ("pack-quantized", "int-quantized", "naive-quantized", "float-quantized", "mixed-precision")
_READ: dict[str, tuple[Any, ...]] = {
    "num_bits": (4, 8, 2),
    "strategy": ("group", "channel", "tensor"),
    "dynamic": (False,),
    "actorder": (False, "weight", "static", "group", "dynamic"),
}
_PARTS = ("weight_scale", "weight_zero_point", "weight_g_idx", "weight_shape")
_DROPPED = (*OF_ACTIVATIONS, ".input_zero_point", ".output_zero_point", ".k_zero_point", ".v_zero_point", ".q_zero_point")


def join_compressed(weights: Mapping[str, Tensor], raw: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Every matrix of whole numbers with its scales and zeros as one tensor; what is said of FP8 ones is left.

    Raises:
        BuildError: quantized in a way that is not read, or parts are missing or misshapen.
    """
    groups = raw.get("config_groups")
    listed = {name: group for name, group in groups.items() if isinstance(group, dict)} if isinstance(groups, dict) else {}
    whole = {name: group["weights"] for name, group in listed.items()
             if isinstance(group.get("weights"), dict) and group["weights"].get("type", "int") == "int"}  # fmt: skip
    if not whole:
        return dict(weights), dict(raw)
    strange = sparsity_problems(raw)
    for said in (raw, *(listed[name] for name in whole)):
        if not among(said.get("format"), _FORMATS):
            strange.append(f"format = {quoted(said['format'])} (read are {', '.join(map(repr, _FORMATS))})")
    for entry in whole.values():
        strange += [f"weights with {key} = {quoted(entry[key])} (only {' or '.join(map(repr, values))} is read)"
                    for key, values in _READ.items() if not among(entry.get(key), values)]  # fmt: skip
    if strange:
        raise refusal(strange)
    joined = {name: tensor for name, tensor in weights.items() if not name.endswith(_DROPPED)}
    for name, tensor in weights.items():
        if name.endswith(".weight_packed") or (name.endswith(".weight") and tensor.dtype == "I8"):
            module = name.rpartition(".")[0]
            own = {part: joined.pop(f"{module}.{part}", None) for part in _PARTS}
            joined.pop(name)
            joined[f"{module}.weight"] = _tensor(f"{module}.weight", tensor, own, list(whole.values()))
    floats = {name: group for name, group in listed.items() if name not in whole}
    return joined, {**raw, "config_groups": floats, "format": "float-quantized"} if floats else None


def _tensor(name: str, stored: Tensor, own: Mapping[str, Tensor | None], entries: list[dict[str, Any]]) -> GroupedTensor:
    """Codes [rows, columns / per word] around the middle one, or int8 [rows, columns]; scales [rows, groups]."""
    scale = own["weight_scale"]
    if scale is None:
        raise BuildError(f"{stored.name} has no {name}_scale beside it", INCOMPLETE)
    is_packed = stored.dtype == "I32"
    if not (is_packed or stored.dtype == "I8") or len(stored.shape) != 2 or not stored.size:
        raise BuildError(f"{stored.name} is {stored.dtype} {list(stored.shape)}; a matrix of I32 was expected", INCOMPLETE)
    rows = stored.shape[0]
    bits, columns = _columns(stored, own["weight_shape"], entries) if is_packed else (8, stored.shape[1])
    count = scale.shape[1] if len(scale.shape) == 2 else 1
    said = next((entry.get("group_size") for entry in entries if entry.get("num_bits") == bits), None)
    codes = PackedIntegers(tensor=stored, rows=rows, columns=columns, bits=bits, axis=1, signed=not is_packed)
    middle = 1 << (bits - 1) if is_packed else 0
    zeros, shift = own["weight_zero_point"], 0
    zero: PackedIntegers | int = middle
    if zeros is not None and zeros.dtype == "I32" and is_packed:
        zero = PackedIntegers(tensor=zeros, rows=rows, columns=count, bits=bits, axis=0)
    elif zeros is not None and zeros.dtype == "I8" and zeros.shape == scale.shape and scale.shape == (rows, count):
        zero, shift = PackedIntegers(tensor=zeros, rows=rows, columns=count, bits=8, axis=1, signed=True), middle
    elif zeros is not None:
        raise BuildError(f"{zeros.name} is {zeros.dtype} {list(zeros.shape)}, not a zero for each scale", INCOMPLETE)
    return grouped(
        name, codes, scale, zero, group=group_size(columns, count, said), group_of=own["weight_g_idx"], zero_shift=shift
    )


def _columns(packed: Tensor, shape: Tensor | None, entries: list[dict[str, Any]]) -> tuple[int, int]:
    """Bits of a code and columns: as the config says where it says one for all, else by the shape that lies beside.

    Headers read from the hub come without numbers: there is no shape beside, and all words are taken to be full.
    """
    words = packed.shape[1]
    beside = shape.integers().reshape(-1).tolist() if shape is not None and shape.size == 2 else []
    is_known = len(beside) == 2 and beside[0] == packed.shape[0] and beside[1] > 0
    allowed = sorted({entry.get("num_bits") or 8 for entry in entries})
    fits = [bits for bits in allowed if not is_known or -(-beside[1] * bits // 32) == words]
    if len(fits) != 1:
        raise BuildError(
            f"{packed.name} {list(packed.shape)} holds a matrix {beside or 'of unknown shape'}, which "
            f"{' or '.join(map(str, allowed))} bits do not make of it",
            INCOMPLETE,
        )
    return fits[0], beside[1] if is_known else words * 32 // fits[0]
