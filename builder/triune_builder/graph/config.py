"""Strict reading of config.json: a key that may change the maths and is not understood stops the build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import BuildError
from .rope import Rope, read_rope

# Keys that every architecture reads, by way of `common_keys`, and those of them that must be there.
COMMON = frozenset(
    """
    hidden_size num_attention_heads num_hidden_layers rms_norm_eps rope_parameters rope_scaling rope_theta
    tie_word_embeddings vocab_size
    """.split()
)
NEEDED = frozenset("hidden_size num_attention_heads num_hidden_layers rms_norm_eps vocab_size".split())

# Keys that say nothing about what the model computes at inference.
HARMLESS = frozenset(
    """
    _name_or_path architectures attention_dropout auto_map bos_token_id chunk_size_feed_forward dtype eos_token_id
    hidden_dropout id2label initializer_range is_encoder_decoder is_llama_config label2id max_position_embeddings
    model_type output_attentions output_hidden_states pad_token_id problem_type return_dict task_specific_params
    tokenizer_class torch_dtype transformers.js_config transformers_version unsloth_fixed unsloth_version use_cache
    """.split()
)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What every architecture reads of config.json; each adds what it reads besides."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    vocab_size: int
    rms_norm_eps: float
    tie_word_embeddings: bool
    rope: Rope


def common_keys(config: Mapping[str, Any], *, rope_dim: int) -> dict[str, Any]:
    """The fields of `ModelConfig`.

    Args:
        rope_dim: numbers of a head that are rotated.

    Raises:
        BuildError: a rope scaling that is not understood.
    """
    return {key: config[key] for key in NEEDED} | {
        "tie_word_embeddings": config.get("tie_word_embeddings", False),
        "rope": read_rope(config, rope_dim),
    }


def check_config(
    config: Mapping[str, Any],
    *,
    reads: frozenset[str],
    fixed: Mapping[str, tuple[Any, ...]],
    needs: frozenset[str] = frozenset(),
) -> None:
    """Stop on what the architecture does not understand, and on what it misses.

    Args:
        reads: keys the architecture uses besides the common ones.
        fixed: keys it understands only with these values.
        needs: keys that must be there besides the common ones.

    Raises:
        BuildError: names every missing key; or every unknown key, and every fixed key with another value.
    """
    missing = sorted((NEEDED | needs) - config.keys())
    if missing:
        raise BuildError(
            f"config.json of a {config.get('model_type')} lacks {', '.join(missing)}", "is it the config.json of this model?"
        )
    problems = [f"{key} = {config[key]!r} (only {' or '.join(map(repr, ok))} is built)"
                for key, ok in fixed.items() if key in config and config[key] not in ok]  # fmt: skip
    problems += [f"{key} = {config[key]!r} (not understood)" for key in sorted(config)
                 if key not in reads | COMMON | HARMLESS and key not in fixed]  # fmt: skip
    if problems:
        raise BuildError(
            "config.json has keys that may change the maths: " + "; ".join(problems),
            "if a key is harmless, add it to HARMLESS in graph/config.py; if not, teach the architecture to read it",
        )
