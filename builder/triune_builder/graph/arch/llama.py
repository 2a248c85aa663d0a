"""Llama and its descendants (SmolLM2, R1-Distill-Llama), and Mistral, which is Llama with a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import check_config
from ..windows import SLIDING, read_windows
from . import decoder
from .promised import MLP

_FIXED = {
    "hidden_act": ("silu",),
    "pretraining_tp": (1,),
    "rope_interleaved": (False,),
    "partial_rotary_factor": (1, 1.0),
    "attention_bias": (True, False),
    "mlp_bias": (True, False),
}


def read(config: Mapping[str, Any]) -> decoder.Config:
    """What config.json says.

    Raises:
        BuildError: a key that may change the maths is not understood.
    """
    check_config(config, reads=decoder.READS | SLIDING, needs=decoder.NEEDS, fixed=_FIXED)
    biases = (decoder.ATTENTION if config.get("attention_bias") else ()) + (MLP if config.get("mlp_bias") else ())
    return decoder.read(config, windows=read_windows(config), biases=biases)
