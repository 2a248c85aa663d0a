"""Qwen3 (R1-0528-Qwen3-8B): each query and key head is normalized, and heads have a size of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import positions_key, read_config
from ..keys import FLAG, Key, count, one_of
from ..windows import QWEN, qwen_windows
from . import decoder

_HEAD_DIM, _KV_HEADS = 128, 32  # where config.json is silent
KEYS: dict[str, Key] = decoder.KEYS | positions_key(32_768) | QWEN | {
    "num_key_value_heads": Key(kind=count(), missing=_KV_HEADS, null=None),
    "head_dim": Key(kind=count(), missing=_HEAD_DIM),
    "attention_bias": Key(kind=FLAG, missing=False),
    "use_mrope": Key(kind=one_of(False), missing=False, null=False),
}  # fmt: skip
IGNORED = {"mlp_bias": FLAG}


def read(config: Mapping[str, Any]) -> decoder.Config:
    """What config.json says.

    Raises:
        BuildError: a key that may change the maths is not understood.
    """
    said, remarks = read_config(config, KEYS, ignored=IGNORED)
    biases = decoder.ATTENTION if said["attention_bias"] else ()
    return decoder.make(config, said, remarks, windows=qwen_windows(said), biases=biases, head_norms=True)
