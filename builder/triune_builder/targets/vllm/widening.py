"""Latent attention of other sizes, rewritten to R1's without changing what it computes: vLLM has kernels for few.

Every number that is written is one of the stored, a power of two times one of them, or zero, so bfloat16 holds what it held.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
LATENT, ROTATED, PLAIN, VALUE = 512, 64, 128, 128  # R1's kv_lora_rank, qk_rope_head_dim, qk_nope_head_dim and v_head_dim
_FACTORS = {1: 1, 4: 2, 16: 4}  # how many times as wide heads become: what queries are multiplied by


class Weight(Protocol):
    """What is written of a checkpoint's tensor."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def size(self) -> int: ...

    def float32(self) -> Floats: ...


@dataclass(frozen=True)
class _Sizes:
    """Of a model's attention."""

    heads: int
    plain: int
    rotated: int
    value: int
    latent: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> _Sizes:
        names = ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank")
        return cls(*(int(config[name]) for name in names))

    @property
    def factor(self) -> int:
        """Scores are divided by the root of a head's width, which grows: queries are multiplied by so much."""
        wide, own = PLAIN + ROTATED, self.plain + self.rotated
        return _FACTORS.get(wide // own, 0) if wide % own == 0 else 0


def can_widen(config: Mapping[str, Any]) -> bool:
    """Whether a DeepSeek model's attention can be rewritten to R1's sizes, to the bit."""
    try:
        sizes = _Sizes.of(config)
    except (KeyError, TypeError, ValueError):
        return False
    fits = sizes.plain <= PLAIN and 0 < sizes.rotated <= ROTATED and sizes.value <= VALUE and 0 < sizes.latent <= LATENT
    # Rotated pairs stay where they are only if they lie side by side, and their frequencies only if nothing scales them.
    as_stored = not config.get("rope_scaling") and config.get("rope_interleave", True) and not config.get("attention_bias")
    return bool(fits and as_stored and LATENT % sizes.latent == 0 and sizes.factor)


def widened_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of the rewritten model. Pair i of r turns by theta^(-2i/r): with more pairs, by a larger theta."""
    theta = float(config.get("rope_theta", 10_000.0)) ** (ROTATED / int(config["qk_rope_head_dim"]))
    sizes = {"kv_lora_rank": LATENT, "qk_rope_head_dim": ROTATED, "qk_nope_head_dim": PLAIN, "v_head_dim": VALUE}
    return dict(config) | sizes | {"rope_theta": theta}


def widened_weights(config: Mapping[str, Any], weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """The weights of the rewritten model: heads get zeros; the latent is repeated, which leaves its norm, and read once.

    Args:
        config: of the model as it is.
    """
    sizes, found = _Sizes.of(config), dict(weights)
    query, heads = sizes.heads * (PLAIN + ROTATED), sizes.heads
    rules: dict[str, tuple[_Rule, int, int | None]] = {  # rows and columns, of which there may be as many as there were
        "self_attn.q_proj.weight": (_queries, query, None),
        "self_attn.q_b_proj.weight": (_queries, query, None),
        "self_attn.kv_a_proj_with_mqa.weight": (_latents, LATENT + ROTATED, None),
        "self_attn.kv_a_layernorm.weight": (_norm, LATENT, None),
        "self_attn.kv_b_proj.weight": (_keys_and_values, heads * (PLAIN + VALUE), LATENT),
        "self_attn.o_proj.weight": (_out, int(config["hidden_size"]), heads * VALUE),
    }
    for name, weight in weights.items():
        for end, (rule, rows, columns) in rules.items():
            if name.endswith(end):
                shape = (rows, *((columns or size) for size in weight.shape[1:]))
                found[name] = _Widened(weight, rule, sizes, shape)
    return found


_Rule = Callable[[Floats, _Sizes], Floats]


@dataclass(frozen=True)
class _Widened:
    """A weight that is rewritten when it is read."""

    stored: Weight
    rule: _Rule
    sizes: _Sizes
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def float32(self) -> Floats:
        return self.rule(self.stored.float32(), self.sizes).reshape(self.shape)


def _queries(weight: Floats, sizes: _Sizes) -> Floats:
    rows = weight.reshape(sizes.heads, sizes.plain + sizes.rotated, -1) * np.float32(sizes.factor)
    return np.concatenate([_padded(rows[:, : sizes.plain], 1, PLAIN), _padded(rows[:, sizes.plain :], 1, ROTATED)], axis=1)


def _latents(weight: Floats, sizes: _Sizes) -> Floats:
    latent = np.tile(weight[: sizes.latent], (LATENT // sizes.latent, 1))
    return np.concatenate([latent, _padded(weight[sizes.latent :], 0, ROTATED)])


def _norm(weight: Floats, sizes: _Sizes) -> Floats:
    return np.tile(weight, LATENT // sizes.latent)


def _keys_and_values(weight: Floats, sizes: _Sizes) -> Floats:
    rows = _padded(weight.reshape(sizes.heads, sizes.plain + sizes.value, sizes.latent), 2, LATENT)
    return np.concatenate([_padded(rows[:, : sizes.plain], 1, PLAIN), _padded(rows[:, sizes.plain :], 1, VALUE)], axis=1)


def _out(weight: Floats, sizes: _Sizes) -> Floats:
    return _padded(weight.reshape(len(weight), sizes.heads, sizes.value), 2, VALUE)


def _padded(weight: Floats, axis: int, size: int) -> Floats:
    """With zeros behind, up to a size."""
    behind = [(0, 0)] * weight.ndim
    behind[axis] = (0, size - weight.shape[axis])
    return np.pad(weight, behind)
