"""The exported graphs compute what the architecture's definition says. Run: pytest tests/builder/test_graph.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fakes.engines import float_logits
from fakes.tiny_llama import FakeCheckpoint, FakeTensor, TinyRunner, tiny_checkpoint
from triune_builder.errors import BuildError
from triune_builder.graph.export import export
from triune_builder.graph.rope import read_rope
from triune_builder.targets import onnx_files
from triune_runtime.runner import Work

MAX_LENGTH = 64
SHAPES: list[dict[str, Any]] = [
    {},
    {"tie_word_embeddings": False},
    {"num_attention_heads": 3, "num_key_value_heads": 1, "hidden_size": 96},
    {"num_attention_heads": 4, "num_key_value_heads": 4},
    {"head_dim": 16},
    {"num_hidden_layers": 1},
]


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_float_graph_equals_the_definition_at_prefill_chunks_and_decode(changes: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(**changes)
    tokens = np.random.default_rng(1).integers(0, 256, 24).tolist()
    runner = TinyRunner(checkpoint.config, checkpoint.weights)
    expected = runner.run([Work(0, 0, tuple(tokens))])[0]
    for chunks in ([tokens], [tokens[:9], tokens[9:20], tokens[20:]], [tokens[:20], *([t] for t in tokens[20:])]):
        got = float_logits(export(checkpoint, max_length=MAX_LENGTH), tmp_path, chunks)  # type: ignore[arg-type]
        assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()


def test_float_graph_passes_the_onnx_checker(tmp_path: Path) -> None:
    onnx_files.write(export(tiny_checkpoint(), max_length=MAX_LENGTH), tmp_path)  # type: ignore[arg-type]
    onnx.checker.check_model(str(tmp_path / onnx_files.MODEL), full_check=True)


def test_exporting_reads_no_weight() -> None:
    checkpoint = tiny_checkpoint()
    export(checkpoint, max_length=MAX_LENGTH)  # type: ignore[arg-type]
    assert not any(t.reads for t in checkpoint.weights.values())


def test_biases_are_used_where_the_checkpoint_has_them(tmp_path: Path) -> None:
    plain = tiny_checkpoint()
    bias = {f"model.layers.0.self_attn.{n}_proj.bias": np.full(size, 0.5, np.float32) for n, size in
            (("q", 32), ("k", 16), ("v", 16))}  # fmt: skip
    biased = with_weights(plain, {n: FakeTensor(b) for n, b in bias.items()})
    tokens = [[3, 1, 4, 1, 5]]
    without = float_logits(export(plain, max_length=MAX_LENGTH), tmp_path, tokens)  # type: ignore[arg-type]
    with_bias = float_logits(export(biased, max_length=MAX_LENGTH), tmp_path, tokens)  # type: ignore[arg-type]
    assert np.abs(without - with_bias).max() > 1e-2


def test_a_bias_on_some_parts_of_a_fused_product_is_refused() -> None:
    odd = with_weights(tiny_checkpoint(), {"model.layers.0.self_attn.q_proj.bias": FakeTensor(np.zeros(32, np.float32))})
    with pytest.raises(BuildError, match="only some of q_proj, k_proj, v_proj"):
        export(odd, max_length=MAX_LENGTH)  # type: ignore[arg-type]


def test_missing_and_spare_weights_are_named() -> None:
    whole = tiny_checkpoint()
    fewer = {n: t for n, t in whole.weights.items() if n != "model.layers.1.mlp.up_proj.weight"}
    with pytest.raises(BuildError, match=r"no weight model\.layers\.1\.mlp\.up_proj\.weight"):
        export(FakeCheckpoint(config=whole.config, weights=fewer, tokenizer_json=""), max_length=8)  # type: ignore[arg-type]
    more = with_weights(whole, {"model.layers.0.self_attn.q_norm.weight": FakeTensor(np.ones(8, np.float32))})
    with pytest.raises(BuildError, match=r"read by nothing: model\.layers\.0\.self_attn\.q_norm\.weight"):
        export(more, max_length=8)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("sliding_window", 0, "sliding_window is 0"),
        ("hidden_act", "gelu", "hidden_act = 'gelu'"),
        ("rope_scaling", {"rope_type": "yarn"}, r"rope_scaling\.factor is missing; expected a number above 0"),
        ("rope_scaling", {"rope_type": "linear", "factor": 4.0, "odd": 1}, "factor, odd"),
        ("model_type", "mamba", "no architecture for model_type 'mamba'"),
    ],
)
def test_config_keys_that_change_the_maths_stop_the_build(key: str, value: Any, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        export(tiny_checkpoint(**{key: value}), max_length=8)  # type: ignore[arg-type]


def test_rope_tables_equal_transformers() -> None:
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    scalings: list[dict[str, Any] | None] = [
        None,
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 64},
    ]  # fmt: skip
    for scaling in scalings:
        parameters = (scaling or {"rope_type": "default"}) | {"rope_theta": 5000.0}
        config = LlamaConfig(hidden_size=64, num_attention_heads=2, max_position_embeddings=512, rope_parameters=parameters)
        positions = torch.arange(300)[None]
        cos, sin = LlamaRotaryEmbedding(config)(torch.zeros(1), positions)
        ours = read_rope({"rope_theta": 5000.0, "rope_scaling": scaling}, 32).tables(300)
        for mine, theirs in zip(ours, (cos, sin), strict=True):
            np.testing.assert_allclose(mine, theirs[0, :, :16].numpy(), atol=2e-5)


@pytest.mark.parametrize("kind", ["linear", "yarn", "llama3"])
def test_a_factor_may_be_a_whole_number_that_no_integer_of_numpy_holds(kind: str) -> None:
    more = {"low_freq_factor": 1, "high_freq_factor": 4} if kind == "llama3" else {}
    scaling = {"rope_type": kind, **more} | ({} if kind == "linear" else {"original_max_position_embeddings": 32})
    ours, theirs = (
        read_rope({"rope_theta": 5000.0, "rope_scaling": scaling | {"factor": factor}}, 32, max_positions=64).tables(20)
        for factor in (2**64, float(2**64))
    )
    assert np.array_equal(ours, theirs)


def with_weights(checkpoint: FakeCheckpoint, more: dict[str, FakeTensor]) -> FakeCheckpoint:
    return FakeCheckpoint(config=checkpoint.config, weights={**checkpoint.weights, **more}, tokenizer_json="")
