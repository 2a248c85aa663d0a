"""Strict reading of config.json: a key that may change the maths and is not understood stops the build.

Every architecture declares the keys that it reads, with what a missing or null one means. What they mean is what transformers
5 takes them for (its configuration_*.py and configuration_utils.py); docs/config.md shows the declarations as tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import BuildError
from .keys import FLAG, REFUSED, Key, Kind, count, number, one_of, read_keys, shown
from .rope import Rope, read_rope

MOST_LAYERS = 1000

# Keys that every architecture reads, beside those of rotary positions.
COMMON: dict[str, Key] = {
    "vocab_size": Key(kind=count()),
    "hidden_size": Key(kind=count()),
    "num_hidden_layers": Key(kind=count(most=MOST_LAYERS)),
    "num_attention_heads": Key(kind=count(most=1 << 16)),
    "rms_norm_eps": Key(kind=number(least=0), missing=1e-6),
    "hidden_act": Key(kind=one_of("silu", "swish"), missing="silu"),  # two names of one function
    "tie_word_embeddings": Key(kind=FLAG, missing=False),
}
ROPE = frozenset("rope_parameters rope_scaling rope_theta partial_rotary_factor original_max_position_embeddings".split())

# Keys that say nothing about what the model computes at inference: what transformers' PretrainedConfig stores (4.30 to 5.23)
# and its architectures' training, then what other programs leave.
HARMLESS = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _attn_implementation_internal _commit_hash _experts_implementation
    _experts_implementation_internal _flash_attn_2_enabled _name_or_path _output_attentions add_cross_attention architectures
    attention_dropout attn_implementation auto_map base_model_ep_plan base_model_pp_plan base_model_tp_plan bos_token_id
    chunk_size_feed_forward classifier_dropout cross_attention_hidden_size custom_pipelines decoder_start_token_id dtype
    eos_token_id experts_implementation finetuning_task gradient_checkpointing hidden_dropout id2label initializer_range
    is_decoder is_encoder_decoder label2id model_type name_or_path num_labels output_attentions output_hidden_states
    pad_token_id prefix pretraining_tp problem_type quantization_config resid_pdrop attn_pdrop embd_pdrop return_dict
    sep_token_id task_specific_params tf_legacy_loss tie_encoder_decoder tie_last_hidden_states tokenizer_class torch_dtype
    torchscript transformers_version transformers_weights unk_token_id use_bfloat16 use_cache use_return_dict xla_device

    assistant_confidence_threshold assistant_early_exit assistant_lookbehind bad_words_ids begin_suppress_tokens
    cache_config cache_implementation constraints disable_compile diversity_penalty do_sample early_stopping
    encoder_no_repeat_ngram_size encoder_repetition_penalty epsilon_cutoff eta_cutoff exponential_decay_length_penalty
    force_words_ids forced_bos_token_id forced_eos_token_id forced_decoder_ids guidance_scale is_assistant length_penalty
    low_memory max_length max_matching_ngram_size max_new_tokens max_time min_length min_new_tokens min_p
    no_repeat_ngram_size num_assistant_tokens num_assistant_tokens_schedule num_beam_groups num_beams num_return_sequences
    output_logits output_scores penalty_alpha prompt_lookup_num_tokens remove_invalid_values renormalize_logits
    repetition_penalty return_dict_in_generate return_legacy_cache sequence_bias stop_strings suppress_tokens
    target_lookbehind temperature token_healing top_h top_k top_p typical_p use_mtp watermarking_config

    _flash_attn_version is_llama_config max_sequence_length model_max_length neftune_noise_alpha transformers.js_config
    unsloth_fixed unsloth_version use_flash_attention use_flash_attn
    """.split()
)
EMPTY = ("pruned_heads", "per_layer_config")  # harmless where there is nothing in them


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
    remarks: tuple[str, ...] = ()  # sentences that the builder should read: what was settled, and how


def positions_key(usual: int) -> dict[str, Key]:
    """max_position_embeddings, which an architecture means by `usual` where it is missing."""
    return {"max_position_embeddings": Key(kind=count(), missing=usual)}


def read_config(
    config: Mapping[str, Any], keys: Mapping[str, Key], *, ignored: Mapping[str, Kind] | None = None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What each of `keys` means, and a remark for each key that is set and ignored.

    Args:
        ignored: keys that transformers' architecture does not read, though others of theirs do.

    Raises:
        BuildError: names every missing key; or every unknown one that says something; or every malformed value.
    """
    ignored = ignored or {}
    missing = sorted(name for name, key in keys.items() if key.missing is REFUSED and name not in config)
    kind = config.get("model_type")
    if missing:
        raise BuildError(f"config.json of a {kind} lacks {', '.join(missing)}", "is it the config.json of this model?")
    known = keys.keys() | ROPE | HARMLESS | ignored.keys()
    problems = [f"{name} = {shown(config[name])} (not understood)" for name in sorted(config)
                if name not in known and config[name] is not None and not (name in EMPTY and not config[name])]  # fmt: skip
    for name, key in keys.items():
        if name in config and key.kind.is_choice and _unbuilt(key, config[name]):
            problems.append(f"{name} = {shown(config[name])} (only {key.kind.expected} is built)")
    if problems:
        raise BuildError(
            "config.json has keys that may change the maths: " + "; ".join(problems),
            "a key without which the model computes the same can be removed from config.json; a model that needs it is not "
            "one that can be built here",
        )
    said = read_keys(config, keys)
    set_though = {name: config[name] for name in ignored if not _says_nothing(name, config.get(name))}
    read_keys(config, {name: Key(kind=ignored[name]) for name in set_though})
    remarks = tuple(
        f"config.json: {name} = {shown(value)} is ignored: transformers' {kind} reads no such key"
        for name, value in set_though.items()
    )
    return said, remarks


def common_fields(config: Mapping[str, Any], said: Mapping[str, Any], *, rope_dim: int) -> dict[str, Any]:
    """The fields of `ModelConfig` but the remarks.

    Args:
        said: as `read_config` gives it.
        rope_dim: numbers of a head that are rotated.

    Raises:
        BuildError: a rope scaling that is not understood.
    """
    own = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "tie_word_embeddings")
    return {name: said[name] for name in own} | {
        "rms_norm_eps": float(said["rms_norm_eps"]),
        "rope": read_rope(config, rope_dim, max_positions=said["max_position_embeddings"]),
    }


def _unbuilt(key: Key, value: Any) -> bool:
    return not key.kind.holds(value) and not (value is None and key.null is not REFUSED)


def _says_nothing(name: str, value: Any) -> bool:
    """Whether an ignored key asks for nothing; max_window_layers does so by itself."""
    if value is None or value is False or name == "max_window_layers":
        return True
    return isinstance(value, list) and all(kind == "full_attention" for kind in value)
