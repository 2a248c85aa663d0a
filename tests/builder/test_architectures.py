"""Llama, Mistral, Qwen2 and Qwen3: engines against the NumPy reference, precisions, what their configs say.

Run: pytest tests/builder/test_architectures.py (the comparison with transformers is in test_architectures_torch.py)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from fakes.engines import float_logits, made_up_maxima, make_engine
from fakes.tiny_dense import YARN, dense_checkpoint, random_changes
from fakes.tiny_llama import FakeCheckpoint
from triune_builder.errors import BuildError
from triune_builder.graph.arch import find_architecture
from triune_builder.graph.export import export
from triune_builder.graph.rope import read_rope
from triune_builder.quantize.smooth import smooth
from triune_builder.quantize.statistics import MAXIMA
from triune_builder.targets import onnx_files
from triune_builder.targets.cpu.lowering import lower
from triune_builder.verify import reference
from triune_runtime.runner import Work

KINDS = ("llama", "mistral", "qwen2", "qwen3")
PUBLISHED = sorted((Path(__file__).parent / "published").glob("r1-*.json"))
SIZES: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16}  # that blocks of 32 divide
BIASED = {"llama": {"o_bias": True, "mlp_bias": True}, "qwen3": {"o_bias": True}}
# The lowered ops against the quantized graph's own definition. MatMulNBits rounds its activations to int8; the rest is exact,
# but that a last bit may turn how one of "rows" is rounded.
TOLERANCE = {"fp32": 1e-5, "rows": 0.02, "w8a8": 0.2, "int8": 0.2, "int4": 0.2}
TOKENS = np.random.default_rng(3).integers(0, 256, 60).tolist()


def reference_logits(checkpoint: FakeCheckpoint, text: list[int]) -> NDArray[np.float32]:
    return np.concatenate([scored.logits for scored in reference.score(checkpoint.config, checkpoint.weights, [text])])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", KINDS)
def test_engine_equals_the_numpy_reference(kind: str, seed: int, tmp_path: Path) -> None:
    changes = random_changes(kind, seed)
    print(f"{kind}, seed {seed}: {changes}")
    checkpoint = dense_checkpoint(kind, seed=seed, **changes)
    runner = make_engine(checkpoint, "fp32", tmp_path).runner
    expected = reference_logits(checkpoint, TOKENS)
    for start, end in ((0, 20), (20, 45), *((i, i + 1) for i in range(45, 60))):
        row = runner.run([Work(0, start, tuple(TOKENS[start:end]))])[0]
        assert np.abs(row - expected[end - 1]).max() < 1e-4 * np.abs(expected).max(), (start, end)


@pytest.mark.parametrize("precision", ["int8", "int4", "rows", "w8a8"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_precision_computes_its_own_definition(kind: str, precision: str, tmp_path: Path) -> None:
    engine = make_engine(dense_checkpoint(kind, **SIZES, **BIASED.get(kind, {})), precision, tmp_path)
    history: list[int] = []
    for start, end in ((0, 11), (11, 30), *((i, i + 1) for i in range(30, 36))):
        row, history = engine.runner.run([Work(0, start, tuple(TOKENS[start:end]))])[0], TOKENS[:end]
        expected = engine.definition(history)
        assert np.sqrt(np.mean((row - expected) ** 2) / np.mean(expected**2)) < TOLERANCE[precision], (start, end)


@pytest.mark.parametrize("kind", KINDS)
def test_smoothing_changes_no_function(kind: str, tmp_path: Path) -> None:
    """Beside normalized heads and biases too; and it reaches the products that w8a8 needs it for."""
    checkpoint = dense_checkpoint(kind, **SIZES, **BIASED.get(kind, {}))
    plain, smoothed = (export(checkpoint, max_length=64) for _ in range(2))  # type: ignore[arg-type]  # a fake
    done = smooth(smoothed.model, smoothed.sources, made_up_maxima(checkpoint, 1.0)[MAXIMA])
    layers = ["self_attn.qkv_proj", "mlp.gate_up_proj"] + (["mlp.down_proj"] if kind != "llama" else [])  # biased up_proj
    names = {f"model.layers.{i}.{name}.weight" for i in range(2) for name in layers}
    assert names <= set(done)
    expected = float_logits(plain, tmp_path, [TOKENS[:20]])
    assert np.abs(float_logits(smoothed, tmp_path, [TOKENS[:20]]) - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("kind", KINDS)
def test_attention_stays_one_product_and_one_op(kind: str, tmp_path: Path) -> None:
    bundle = lower(export(dense_checkpoint(kind, **SIZES), max_length=64))  # type: ignore[arg-type]  # a fake
    onnx_files.write(bundle, tmp_path)
    graph = onnx.load(tmp_path / onnx_files.MODEL, load_external_data=False).graph
    attentions = [node for node in graph.node if node.op_type == "GroupQueryAttention"]
    assert len(attentions) == 2
    assert all(bool(node.input[1]) == (kind == "qwen3") for node in attentions)  # else the product goes in as it is
    assert sum(node.op_type == "FusedMatMul" for node in graph.node) == 2 * 4 + 1
    assert sum(node.op_type == "Split" for node in graph.node) == 2 * (2 if kind == "qwen3" else 1)


def test_heads_that_the_target_does_not_take_stop_the_build() -> None:
    checkpoint = dense_checkpoint("qwen3", hidden_size=64, head_dim=24)
    with pytest.raises(BuildError, match="heads have 24 numbers"):
        lower(export(checkpoint, max_length=64))  # type: ignore[arg-type]  # a fake


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_published_configs_are_read(path: Path) -> None:
    config = json.loads(path.read_text("utf-8"))["config"]
    cfg = find_architecture(config["model_type"]).read(config)
    assert cfg.windows == (None,) * config["num_hidden_layers"]
    assert cfg.head_dim == 128 and cfg.head_norms == (config["model_type"] == "qwen3")
    expected = {"llama": "Llama3Scaling", "qwen2": "NoneType", "qwen3": "YarnScaling"}[config["model_type"]]
    assert type(cfg.rope.scaling).__name__ == expected


def test_there_are_published_configs_of_every_distillation() -> None:
    assert len(PUBLISHED) == 7


def test_r1_0528_qwen3_8b_rotates_without_gain() -> None:
    """Its attn_factor is the inverse of YaRN's own gain."""
    factor = 1 / (1 + 0.1 * np.log(4.0))
    assert factor == pytest.approx(0.8782488562869419)
    turns = [read_rope({"rope_scaling": YARN | more}, 16).tables(50) for more in ({}, {"attn_factor": factor})]
    assert np.allclose(np.hypot(*turns[0]), 1 + 0.1 * np.log(4.0), rtol=1e-6)
    assert np.allclose(np.hypot(*turns[1]), 1, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("key", "value"), [("attention_multiplier", 0.5), ("logit_scale", 2.0), ("hidden_act", "gelu"), ("num_local_experts", 8)]
)
def test_a_key_that_may_change_the_maths_stops_the_build(kind: str, key: str, value: Any) -> None:
    with pytest.raises(BuildError, match=key):
        export(dense_checkpoint(kind, **{key: value}), max_length=64)  # type: ignore[arg-type]  # a fake


@pytest.mark.parametrize(("kind", "key"), [("qwen2", "use_mrope"), ("llama", "use_sliding_window"), ("mistral", "use_mrope")])
def test_keys_of_another_architecture_stop_the_build(kind: str, key: str) -> None:
    with pytest.raises(BuildError, match=key):
        export(dense_checkpoint(kind, **{key: True}), max_length=64)  # type: ignore[arg-type]  # a fake


@pytest.mark.parametrize(
    ("kind", "spare"), [("llama", "self_attn.q_norm.weight"), ("qwen3", "self_attn.sinks"), ("qwen2", "mlp.gate.weight")]
)
def test_a_weight_that_the_architecture_does_not_have_is_named(kind: str, spare: str) -> None:
    checkpoint = dense_checkpoint(kind, **SIZES)
    weights = dict(checkpoint.weights)
    weights[f"model.layers.1.{spare}"] = weights["model.norm.weight"]
    checkpoint = FakeCheckpoint(config=checkpoint.config, weights=weights, tokenizer_json="")
    with pytest.raises(BuildError, match=f"model.layers.1.{spare}"):
        export(checkpoint, max_length=64)  # type: ignore[arg-type]  # a fake
