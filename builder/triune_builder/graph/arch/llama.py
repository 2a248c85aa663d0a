"""Llama and its descendants (SmolLM2, R1-Distill-Llama)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import positions_key, read_config
from ..keys import FLAG, LAYER_KINDS, Key, count, one_of
from . import decoder
from .promised import MLP

KEYS: dict[str, Key] = decoder.KEYS | positions_key(2048) | {
    "attention_bias": Key(kind=FLAG, missing=False),
    "mlp_bias": Key(kind=FLAG, missing=False),
    "rope_interleaved": Key(kind=one_of(False), missing=False, null=False),
    "use_sliding_window": Key(kind=one_of(False), missing=False, null=False),
}  # fmt: skip
IGNORED = {"sliding_window": count(), "layer_types": LAYER_KINDS, "max_window_layers": count(least=0)}


def read(config: Mapping[str, Any]) -> decoder.Config:
    """What config.json says.

    Raises:
        BuildError: a key that may change the maths is not understood.
    """
    said, remarks = read_config(config, KEYS, ignored=IGNORED)
    biases = (decoder.ATTENTION if said["attention_bias"] else ()) + (MLP if said["mlp_bias"] else ())
    windows = (None,) * said["num_hidden_layers"]
    return decoder.make(config, said, remarks, windows=windows, biases=biases)
