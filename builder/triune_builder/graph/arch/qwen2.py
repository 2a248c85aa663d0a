"""Qwen2 (R1-Distill-Qwen): Llama's decoder with biases on queries, keys and values, and windows that a switch turns on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import positions_key, read_config
from ..keys import FLAG, Key, count, one_of
from ..windows import QWEN, qwen_windows
from . import decoder

_KV_HEADS = 32  # where config.json is silent
KEYS: dict[str, Key] = decoder.KEYS | positions_key(32_768) | QWEN | {
    "num_key_value_heads": Key(kind=count(), missing=_KV_HEADS, null=None),
    "use_mrope": Key(kind=one_of(False), missing=False, null=False),
}  # fmt: skip
IGNORED = {"attention_bias": FLAG, "mlp_bias": FLAG}


def read(config: Mapping[str, Any]) -> decoder.Config:
    """What config.json says.

    Raises:
        BuildError: a key that may change the maths is not understood.
    """
    said, remarks = read_config(config, KEYS, ignored=IGNORED)
    return decoder.make(config, said, remarks, windows=qwen_windows(said), biases=("q_proj", "k_proj", "v_proj"))
