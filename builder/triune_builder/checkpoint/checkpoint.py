"""What every source delivers: configuration, lazy weights and tokenizer, under Hugging Face names. Opens no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .tensor import Tensor


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model as published. Weights are read when asked for, one at a time."""

    name: str
    config: dict[str, Any]  # as in config.json
    weights: Mapping[str, Tensor]  # e.g. model.layers.0.self_attn.q_proj.weight; no lm_head.weight if it is tied
    tokenizer_json: str  # text of a tokenizer.json
    chat_template: str | None = None  # Jinja
    tool_template: str | None = None  # used in place of it where a chat has tools
    special_tokens: dict[str, str] = field(default_factory=dict)  # bos_token, eos_token, ..., and the publisher's own
    stop_token_ids: tuple[int, ...] = ()
    bos_token_id: int | None = None
    generation_config: dict[str, Any] = field(default_factory=dict)  # what of it is of use here, checked; see sampling.py
    verification: dict[str, Any] = field(default_factory=dict)  # the model's own texts; see verify/texts.py
    notes: tuple[str, ...] = ()  # what its user should know: sentences without a period
    files: tuple[Path, ...] = ()  # all whose contents decide a build
