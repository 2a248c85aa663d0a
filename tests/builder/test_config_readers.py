"""The graph's reader of config.json and the reference's own: they agree on whatever the first lets through, and neither trips.

Run: pytest tests/builder/test_config_readers.py (that both are right is what test_golden_configs.py shows)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from support.golden_cases import BASES
from support.random_configs import KEYS, ROPE_PARTS, configs
from triune_builder.errors import BuildError
from triune_builder.graph.arch import ARCHITECTURES
from triune_builder.graph.arch.decoder import Config as DenseConfig
from triune_builder.graph.rope import Rope
from triune_builder.verify import reference_config
from triune_builder.verify.reference_rope import Turning


def assert_same_turns(rope: Rope, turns: Turning) -> None:
    limit = getattr(rope.scaling, "limit", 80)
    cos, sin = rope.tables(min(80, limit))
    angles = turns.angles(len(cos))
    np.testing.assert_allclose(cos, turns.amplitude * np.cos(angles), rtol=0, atol=1e-5)
    np.testing.assert_allclose(sin, turns.amplitude * np.sin(angles), rtol=0, atol=1e-5)


@settings(max_examples=400, deadline=None)
@given(config=configs())
def test_both_readers_understand_the_same(config: dict[str, Any]) -> None:
    try:
        cfg = ARCHITECTURES[config["model_type"]].read(config)
    except BuildError:
        assume(False)
    model = reference_config.read(config)
    assert (cfg.num_hidden_layers, cfg.num_attention_heads, cfg.rms_norm_eps) == (model.layers, model.heads, model.eps)
    assert_same_turns(cfg.rope, model.turning)
    if isinstance(model, reference_config.Dense):
        assert isinstance(cfg, DenseConfig)
        mine = (cfg.num_key_value_heads, cfg.head_dim, cfg.windows, cfg.head_norms, cfg.biases)
        assert mine == (model.kv_heads, model.dim, model.windows, model.normalized, model.biased)
        return
    assert cfg.softmax_scale == pytest.approx(model.turning.softmax_factor / (model.nope + model.rope) ** 0.5)
    ours = (
        cfg.qk_nope_head_dim, cfg.qk_rope_head_dim, cfg.v_head_dim, cfg.q_lora_rank, cfg.kv_lora_rank, cfg.attention_bias,
        cfg.rope_interleave, cfg.first_k_dense_replace, cfg.moe_layer_freq, cfg.n_shared_experts, cfg.n_routed_experts,
        cfg.num_experts_per_tok, cfg.n_group, cfg.topk_group, cfg.norm_topk_prob, cfg.routed_scaling_factor,
    )  # fmt: skip
    assert ours == (
        model.nope, model.rope, model.value, model.query_rank, model.rank, bool(model.biased),
        model.interleaved, model.dense_layers, model.every, model.shared_experts, model.experts,
        model.chosen, model.groups, model.chosen_groups, model.normalized, model.factor,
    )  # fmt: skip


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.sampled_from([10**30, -(10**30), 2**31, 10**400, 2.5, 1e308, -0.0])
    | st.floats() | st.text(max_size=5) | st.sampled_from(["32", "yarn", "silu", "\x1b[2J"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ROPE_PARTS, "x"]), inner, max_size=4),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(data=st.data(), kind=st.sampled_from(sorted(BASES)))
def test_a_malformed_config_is_read_or_refused_in_one_sentence(data: st.DataObject, kind: str) -> None:
    """Never a traceback; and whatever is read can be weighed at once."""
    names = [*KEYS[kind], "rope_scaling", "rope_parameters", "rope_theta", "original_max_position_embeddings", "layer_types",
             "partial_rotary_factor", "num_local_experts", "qk_head_dim", "sliding_window", "attention_bias"]  # fmt: skip
    changed = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True))
    config = {"model_type": kind, **BASES[kind], **{name: data.draw(JSON) for name in changed}}
    try:
        cfg = ARCHITECTURES[kind].read(config)
    except BuildError as error:
        said = str(error)
        assert "\n" not in said and "\x1b" not in said and len(said) < 1000
        assert any(name in said for name in (*changed, "experts", "heads", "rotated", "config.json")), said
        return
    if cfg.num_hidden_layers * getattr(cfg, "n_routed_experts", 1) < 1000:
        assert ARCHITECTURES[kind].promises(cfg).required
    reference_config.read(config)
