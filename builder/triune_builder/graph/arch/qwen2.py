"""Qwen2 (R1-Distill-Qwen): Llama's decoder with biases on queries, keys and values, and windows that a switch turns on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import check_config
from ..windows import SLIDING, SWITCHED, read_windows
from . import decoder

_FIXED = {"hidden_act": ("silu",), "use_mrope": (False,)}


def read(config: Mapping[str, Any]) -> decoder.Config:
    """What config.json says.

    Raises:
        BuildError: a key that may change the maths is not understood.
    """
    check_config(config, reads=decoder.READS | SLIDING | SWITCHED, needs=decoder.NEEDS, fixed=_FIXED)
    return decoder.read(config, windows=read_windows(config, switched=True), biases=("q_proj", "k_proj", "v_proj"))
