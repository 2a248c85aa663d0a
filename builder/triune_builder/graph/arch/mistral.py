"""Mistral: Llama's decoder without biases, with one window for all layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import positions_key, read_config
from ..keys import FLAG, LAYER_KINDS, Key, count
from ..windows import MISTRAL, mistral_windows
from . import decoder

_KV_HEADS = 8  # where config.json is silent
KEYS: dict[str, Key] = decoder.KEYS | positions_key(131_072) | MISTRAL | {
    "num_key_value_heads": Key(kind=count(), missing=_KV_HEADS, null=None),
}  # fmt: skip
IGNORED = {
    "attention_bias": FLAG, "mlp_bias": FLAG, "layer_types": LAYER_KINDS, "use_sliding_window": FLAG,
    "max_window_layers": count(least=0),
}  # fmt: skip


def read(config: Mapping[str, Any]) -> decoder.Config:
    """What config.json says.

    Raises:
        BuildError: a key that may change the maths is not understood.
    """
    said, remarks = read_config(config, KEYS, ignored=IGNORED)
    return decoder.make(config, said, remarks, windows=mistral_windows(config, said), biases=())
