"""What every source delivers: configuration, lazy weights and tokenizer, under Hugging Face names. Opens no file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .tensor import Tensor

# Special tokens that chat models end their turn or text with; some publishers name only one of them in their config.
END_TOKENS = frozenset(
    "<|im_end|> <|eot_id|> <|eom_id|> <|endoftext|> <|end_of_text|> <|EOT|> <end_of_turn> <｜end▁of▁sentence｜>".split()
)


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
    generation_config: dict[str, Any] = field(default_factory=dict)
    verification: dict[str, Any] = field(default_factory=dict)  # the model's own texts; see verify/texts.py
    files: tuple[Path, ...] = ()  # all whose contents decide a build


def stop_ids(named: Iterable[Any], special: Mapping[str, int]) -> tuple[int, ...]:
    """Ids that end an answer, in order and once each.

    Args:
        named: what configs name: ids, lists of ids, or None.
        special: text -> id of the tokenizer's special tokens; those known to end a turn are added.
    """
    ids: list[int] = []
    for entry in named:
        ids += entry if isinstance(entry, list) else [] if entry is None else [entry]
    ids += [i for text, i in special.items() if text in END_TOKENS]
    return tuple(dict.fromkeys(ids))
