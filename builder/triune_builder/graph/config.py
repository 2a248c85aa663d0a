"""Strict reading of config.json: a key that may change the maths and is not understood stops the build."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import BuildError

# Keys that say nothing about what the model computes at inference.
HARMLESS = frozenset(
    """
    _name_or_path architectures attention_dropout auto_map bos_token_id chunk_size_feed_forward dtype eos_token_id
    hidden_dropout id2label initializer_range is_encoder_decoder is_llama_config label2id max_position_embeddings
    model_type output_attentions output_hidden_states pad_token_id problem_type return_dict task_specific_params
    tokenizer_class torch_dtype transformers.js_config transformers_version unsloth_fixed unsloth_version use_cache
    """.split()
)


def check_config(config: Mapping[str, Any], *, reads: frozenset[str], fixed: Mapping[str, tuple[Any, ...]]) -> None:
    """Stop on what the architecture does not understand.

    Args:
        reads: keys the architecture uses.
        fixed: keys it understands only with these values.

    Raises:
        BuildError: names every unknown key, and every fixed key with another value.
    """
    problems = [f"{key} = {config[key]!r} (only {' or '.join(map(repr, ok))} is built)"
                for key, ok in fixed.items() if key in config and config[key] not in ok]  # fmt: skip
    problems += [f"{key} = {config[key]!r} (not understood)" for key in sorted(config)
                 if key not in reads and key not in fixed and key not in HARMLESS]  # fmt: skip
    if problems:
        raise BuildError(
            "config.json has keys that may change the maths: " + "; ".join(problems),
            "if a key is harmless, add it to HARMLESS in graph/config.py; if not, teach the architecture to read it",
        )
