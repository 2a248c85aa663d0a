"""What single keys of config.json mean, which are harmless, and how what is not understood is refused.

Run: pytest tests/builder/test_config_keys.py
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from support.golden_cases import BASES
from triune_builder.errors import BuildError
from triune_builder.graph.arch import ARCHITECTURES
from triune_builder.graph.rope_scalings import YarnScaling
from triune_builder.lengths import own_length

KINDS = sorted(BASES)
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}


def read(kind: str, *missing: str, **changes: Any) -> Any:
    config = {"model_type": kind, **BASES[kind], **changes}
    return ARCHITECTURES[kind].read({key: value for key, value in config.items() if key not in missing})


HARMLESS: dict[str, Any] = {
    "_attn_implementation_autoset": True, "_commit_hash": "abc", "_flash_attn_2_enabled": True, "_name_or_path": "x",
    "add_cross_attention": False, "architectures": ["X"], "attention_dropout": 0.1, "attn_implementation": "sdpa",
    "auto_map": {"AutoConfig": "x.Y"}, "bad_words_ids": [[1]], "begin_suppress_tokens": [1], "chunk_size_feed_forward": 0,
    "cross_attention_hidden_size": None, "decoder_start_token_id": 1, "diversity_penalty": 0.0, "do_sample": True,
    "early_stopping": False, "exponential_decay_length_penalty": None, "finetuning_task": None, "forced_eos_token_id": 2,
    "gradient_checkpointing": True, "id2label": {"0": "A"}, "is_decoder": True, "is_encoder_decoder": False,
    "label2id": {"A": 0}, "length_penalty": 1.0, "max_length": 20, "max_new_tokens": 100, "min_length": 0, "min_p": 0.1,
    "no_repeat_ngram_size": 0, "num_beam_groups": 1, "num_beams": 1, "num_labels": 2, "num_return_sequences": 1,
    "output_scores": False, "per_layer_config": None, "prefix": None, "pretraining_tp": None, "problem_type": None,
    "pruned_heads": {}, "quantization_config": None, "remove_invalid_values": False, "repetition_penalty": 1.1,
    "return_dict_in_generate": False, "sep_token_id": None, "suppress_tokens": [1], "task_specific_params": None,
    "temperature": 0.6, "tf_legacy_loss": False, "tie_encoder_decoder": False, "tie_last_hidden_states": True,
    "tokenizer_class": "X", "top_k": 20, "top_p": 0.95, "torch_dtype": "bfloat16", "torchscript": False,
    "transformers_version": "4.30.0", "typical_p": 1.0, "use_bfloat16": False, "use_return_dict": True, "xla_device": None,
    "whatever_comes": None,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_keys_that_say_nothing_of_the_maths_change_nothing(kind: str) -> None:
    assert read(kind, **HARMLESS) == read(kind)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {"use_sliding_window": False}),
        ("llama", {"sliding_window": None, "max_window_layers": 12, "layer_types": ["full_attention"] * 2}),
        ("llama", {"pretraining_tp": 2, "rope_interleaved": False, "partial_rotary_factor": 1.0}),
        ("mistral", {"attention_bias": False, "mlp_bias": False, "use_sliding_window": False}),
        ("qwen2", {"attention_bias": False, "use_mrope": False}),
        ("qwen3", {"mlp_bias": False}),
        ("deepseek_v3", {"head_dim": 8, "qk_head_dim": 24, "num_key_value_heads": None, "num_local_experts": 8, "ep_size": 8}),
    ],
)
def test_keys_of_other_architectures_that_ask_for_nothing_change_nothing(kind: str, changes: dict[str, Any]) -> None:
    assert read(kind, **changes) == read(kind)


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("llama", {"sliding_window": 8}, "sliding_window = 8 is ignored: transformers' llama reads no such key"),
        ("mistral", {"attention_bias": True}, "attention_bias = True is ignored"),
        ("qwen2", {"attention_bias": True}, "attention_bias = True is ignored"),
        (
            "llama",
            {"rope_scaling": YARN, "rope_parameters": {"rope_theta": 1e4}},
            "rope_scaling and rope_parameters, which differ",
        ),
        ("llama", {"rope_scaling": YARN | {"rope_theta": 500.0}}, "two values of rope_theta: 500 in rope_scaling counts"),
        ("llama", {"rope_scaling": YARN | {"type": "linear"}}, "rope_type 'yarn' and type 'linear': rope_type counts"),
        (
            "llama",
            {"rope_scaling": YARN, "original_max_position_embeddings": 64},
            "original_max_position_embeddings: 64 counts",
        ),
        ("qwen3", {"rope_scaling": YARN | {"attn_factor": 0.8}}, "attn_factor = 0.8 is read as vLLM and llama.cpp"),
    ],
)
def test_what_is_settled_is_said(kind: str, changes: dict[str, Any], says: str) -> None:
    (remark,) = read(kind, **changes).remarks
    assert says in remark


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [2.5, "32", True, 10**30, 0, -4, [], {}, 4.0])
@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "intermediate_size"])
def test_sizes_are_whole_numbers_in_range(kind: str, key: str, value: Any) -> None:
    with pytest.raises(BuildError, match=rf"config.json of a {kind}: {key} is .*; expected a whole number from 1 to"):
        read(kind, **{key: value})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("rms_norm_eps", "1e-6", "a number of at least 0"),
        ("rms_norm_eps", None, "a number of at least 0"),
        ("rms_norm_eps", float("nan"), "a number of at least 0"),
        ("rms_norm_eps", -1e-6, "a number of at least 0"),
        ("tie_word_embeddings", None, "true or false"),
        ("tie_word_embeddings", "false", "true or false"),
        ("tie_word_embeddings", 1, "true or false"),
        ("rope_theta", None, "a number above 0"),
        ("rope_theta", 0, "a number above 0"),
        ("rope_theta", float("inf"), "a number above 0"),
        ("rope_theta", True, "a number above 0"),
        ("rope_scaling", "linear", "an object or null"),
        ("rope_parameters", [1], "an object or null"),
        ("num_hidden_layers", 1_000_000, "a whole number from 1 to 1,000"),
        ("max_position_embeddings", 2.5, "a whole number"),
    ],
)
def test_a_malformed_value_is_named_with_its_key_and_what_was_expected(kind: str, key: str, value: Any, expected: str) -> None:
    with pytest.raises(BuildError, match=rf"config.json.*: {key} is .*; expected {expected}"):
        read(kind, **{key: value})


def test_what_another_key_replaces_is_an_object_too() -> None:
    with pytest.raises(BuildError, match=r"rope_parameters is 7; expected an object or null"):
        read("llama", rope_scaling=YARN, rope_parameters=7)


@pytest.mark.parametrize(
    ("scaling", "says"),
    [
        ({"type": "linear"}, r"rope_scaling\.factor is missing; expected a number above 0"),
        ({"type": "linear", "factor": None}, r"rope_scaling\.factor is null"),
        ({"type": "linear", "factor": 0}, r"rope_scaling\.factor is 0"),
        ({"type": "dynamic", "factor": "4"}, r"rope_scaling\.factor is '4'"),
        ({"rope_type": None, "factor": 2.0}, "rope scaling None"),
        ({"rope_type": "su"}, "rope scaling 'su' in rope_scaling is not known; known: default, linear, dynamic, llama3"),
        ({"rope_type": "proportional"}, "not known"),
        (YARN | {"truncate": 1}, r"rope_scaling\.truncate is 1; expected true or false"),
        (YARN | {"beta_fast": -1}, r"rope_scaling\.beta_fast is -1"),
        (YARN | {"original_max_position_embeddings": None}, "original_max_position_embeddings is null"),
        (YARN | {"mrope_section": [1, 2]}, "keys .*mrope_section.*; expected factor"),
        (YARN | {"partial_rotary_factor": 0.5}, r"rope_scaling\.partial_rotary_factor is 0\.5"),
        (YARN | {"rope_theta": 1}, "'yarn' needs one above 1"),
        ({"full_attention": YARN}, "parameters of its own for full_attention"),
        ({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0}, "high_freq_factor 4.0"),
        ({"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}, "have 1 and 1 numbers.*8 are needed"),
        ({"rope_type": "longrope", "short_factor": [1.0] * 7 + [0], "long_factor": [1.0] * 8}, "numbers above 0"),
    ],
)
def test_a_malformed_rope_scaling_is_refused_by_its_key(scaling: dict[str, Any], says: str) -> None:
    with pytest.raises(BuildError, match=says):
        read("llama", rope_scaling=scaling)


def test_a_theta_that_the_winning_rope_drops_is_refused_by_both_names() -> None:
    with pytest.raises(
        BuildError, match=r"rope_scaling replaces rope_parameters, whose rope_theta is 500\.0, and means .*10000"
    ):
        read("llama", rope_scaling=YARN, rope_parameters={"rope_theta": 500.0})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("key", "value"),
    [("attention_multiplier", 0.5), ("final_logit_softcapping", 30.0), ("attn_logit_softcapping", 50.0), ("logit_scale", 2.0),
     ("hidden_act", "gelu"), ("pruned_heads", {"0": [1]}), ("per_layer_config", {"0": {"head_dim": 8}}), ("use_mrope", True),
     ("partial_rotary_factor", 0.5), ("use_qk_norm", False), ("no_rope_layers", [1])],
)  # fmt: skip
def test_a_key_that_may_change_the_maths_is_refused_with_a_hint_that_can_be_followed(kind: str, key: str, value: Any) -> None:
    with pytest.raises(BuildError, match=key) as caught:
        read(kind, **{key: value})
    assert ".py" not in str(caught.value) and "HARMLESS" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scoring_func": "softmax"}, 'scoring_func = \'softmax\'.*write "scoring_func": "sigmoid" if'),
        ({"num_local_experts": 16}, "n_routed_experts = 8 and num_local_experts = 16 are two names"),
        ({"n_routed_experts": 10**9}, "n_routed_experts is 1000000000; expected a whole number from 1 to 16,384"),
        ({"n_routed_experts": 16_384, "num_hidden_layers": 1000}, "1000 layers of 16384 experts are more than can be built"),
        ({"num_experts_per_tok": None}, "num_experts_per_tok is null"),
    ],
)
def test_what_deepseek_v3_does_not_compute_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BuildError, match=says):
        read("deepseek_v3", **changes)


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("llama", {"num_key_value_heads": 3}, "4 heads cannot share 3 key-value heads evenly"),
        ("mistral", {}, r"4 heads cannot share 8 key-value heads evenly \(config.json is silent on those\)"),
        ("llama", {"head_dim": 15}, "15 numbers of a head are rotated in pairs"),
        ("llama", {"head_dim": None, "hidden_size": 30}, "hidden_size 30 is not shared evenly by 4 heads"),
    ],
)
def test_heads_that_do_not_fit_together_are_refused(kind: str, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BuildError, match=says):
        read(kind, *({"num_key_value_heads"} - changes.keys() if kind == "mistral" else ()), **changes)


@pytest.mark.parametrize("scaling", [
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "original_max_position_embeddings": 512},
])  # fmt: skip
def test_lengths_at_which_frequencies_would_change_are_refused_with_the_length_to_take(scaling: dict[str, Any]) -> None:
    rope = read("llama", rope_scaling=scaling, max_position_embeddings=512 if scaling["rope_type"] == "dynamic" else 900).rope
    rope.tables(512)
    with pytest.raises(BuildError, match=r"--max-length is 513; .*choose --max-length 512 .*or less"):
        rope.tables(513)


@pytest.mark.parametrize("value", [True, 0, -5, 2.5, "512", 10**30])
def test_a_malformed_number_of_positions_is_refused_as_such_and_not_as_a_length(value: Any) -> None:
    own_length({"max_position_embeddings": value})
    with pytest.raises(BuildError, match=r"max_position_embeddings is .*; expected a whole number"):
        read("llama", max_position_embeddings=value)


def test_attn_factor_of_r1_0528_takes_yarns_gain_back_to_one() -> None:
    """As vLLM and llama.cpp have it; transformers ignores the key: docs/config.md says why this follows the publisher."""
    scaling = read("qwen3", rope_scaling=YARN | {"attn_factor": 0.8782488562869419}).rope.scaling
    assert isinstance(scaling, YarnScaling) and scaling.amplitude == pytest.approx(1)
    plain = dataclasses.replace(scaling, attn_factor=1.0)
    assert plain.amplitude == pytest.approx(1.1386, abs=1e-4)
