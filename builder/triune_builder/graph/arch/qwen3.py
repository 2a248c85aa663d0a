"""Qwen3 (R1-0528-Qwen3-8B): each query and key head is normalized, and heads have a size of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import check_config
from ..windows import SLIDING, SWITCHED, read_windows
from . import decoder

_FIXED = {"hidden_act": ("silu",), "attention_bias": (True, False)}
_HEAD_DIM = 128  # where config.json is silent


def read(config: Mapping[str, Any]) -> decoder.Config:
    """What config.json says.

    Raises:
        BuildError: a key that may change the maths is not understood.
    """
    check_config(config, reads=decoder.READS | SLIDING | SWITCHED, needs=decoder.NEEDS, fixed=_FIXED)
    with_dim = {**config, "head_dim": config.get("head_dim") or _HEAD_DIM}
    biases = decoder.ATTENTION if config.get("attention_bias") else ()
    return decoder.read(with_dim, windows=read_windows(config, switched=True), biases=biases, head_norms=True)
