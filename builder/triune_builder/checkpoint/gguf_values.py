"""What kind of value each GGUF metadata key of an architecture has, and the bounds of all models that there are. A table."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from ..errors import BuildError, quoted

_HINT = "fetch the file again, or build from the model's Hugging Face folder or hub id"
_MOST = {"block_count": 1 << 12, "expert_count": 1 << 16}  # so that names made for each are bounded
_SIZE = 1 << 31
# Keys whose values are no whole numbers above 0; without the architecture's prefix.
_MAY_BE_ZERO = frozenset(
    """
    expert_count expert_used_count expert_shared_count expert_group_count expert_group_used_count leading_dense_block_count
    attention.q_lora_rank
    """.split()
)
_REAL = frozenset(
    """
    attention.layer_norm_rms_epsilon rope.freq_base rope.scaling.factor rope.scale_linear rope.scaling.attn_factor
    rope.scaling.yarn_beta_fast rope.scaling.yarn_beta_slow rope.scaling.yarn_log_multiplier expert_weights_scale
    """.split()
)
_MAY_BE_ZERO_REAL = frozenset({"rope.scaling.factor", "rope.scale_linear"})  # stands for no scaling
_FLAGS = frozenset({"expert_weights_norm", "attention.causal", "rope.scaling.finetuned"})
_TEXTS = frozenset({"rope.scaling.type"})


def check_values(prefix: str, values: Mapping[str, Any], keys: Collection[str]) -> None:
    """Compare the values of `keys` with what such keys hold; lists have been refused or taken before.

    Args:
        prefix: the architecture's, for messages.

    Raises:
        BuildError: names the first that is of another kind or out of bounds.
    """
    for key in sorted(keys & values.keys()):
        value = values[key]
        if (wanted := _wanted(key, value)) is not None:
            raise BuildError(f"the GGUF metadata has {prefix}{key} = {quoted(value)}; {wanted} is expected", _HINT)


def _wanted(key: str, value: Any) -> str | None:
    """What is expected instead; None where the value is right."""
    if key in _TEXTS:
        return None if isinstance(value, str) else "a text"
    if key in _FLAGS:
        return None if isinstance(value, bool) else "true or false"
    if key in _REAL:
        right = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if key in _MAY_BE_ZERO_REAL:
            return None if right and value >= 0 else "a number from 0"
        return None if right and value > 0 else "a number above 0"
    least, most = int(key not in _MAY_BE_ZERO), _MOST.get(key, _SIZE)
    listed = value if isinstance(value, list) else [value]  # of the keys that are not read, some have one for each layer
    right = all(isinstance(n, int) and not isinstance(n, bool) and least <= n <= most for n in listed)
    return None if right else f"a whole number from {least} to {most}"
