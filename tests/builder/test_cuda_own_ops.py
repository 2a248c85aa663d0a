"""Which ops of a CUDA engine's graph become custom ones, and that the graphs with and without are held against each other.

Run: pytest tests/builder/test_cuda_own_ops.py
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest

from fakes.cuda_graphs import LIMITS, Lowered, lowered, tiny
from triune_builder.errors import BuildError
from triune_builder.targets.cuda.own_ops import GRAPH
from triune_builder.targets.cuda.proof import check_alike
from triune_runtime.targets.cuda.plan import CudaPlan
from triune_runtime.targets.device.stored import load_weights

STOCK = {"GatedRMSNorm", "QuickGelu"}  # what gates without custom ops


def nodes(engine: Lowered, name: str = GRAPH) -> list[Any]:
    return list(onnx.load(str(engine.folder / name), load_external_data=False).graph.node)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "int4", "bf16-fp8kv"])
@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "qwen3"])
def test_every_gate_and_every_rotation_of_a_dense_model_is_a_custom_op(
    architecture: str, precision: str, tmp_path: Path
) -> None:
    engine = lowered(tiny(architecture), precision, tmp_path)
    kinds = Counter(node.op_type for node in nodes(engine))
    layers = len(engine.manifest.cache) // 2
    assert kinds["SwiGLU"] == kinds["RotaryQKV"] == kinds["PagedAttention"] == layers and not STOCK & kinds.keys()
    for node in nodes(engine):
        if node.op_type == "RotaryQKV":
            assert bool(node.input[5]) == (architecture == "qwen2")
            assert all(node.input[6:]) == any(node.input[6:]) == (architecture == "qwen3")
        if node.op_type == "PagedAttention":
            assert all(node.input[:3]) and not any(node.input[8:10]) and "do_rotary" not in {a.name for a in node.attribute}


def test_latent_attention_stays_as_it_is_and_experts_are_gated_by_the_custom_op(tmp_path: Path) -> None:
    engine = lowered(tiny("deepseek_v3"), "bf16", tmp_path)
    kinds = Counter(node.op_type for node in nodes(engine))
    assert kinds["RotaryQKV"] == 0 and kinds["SwiGLU"] and not STOCK & kinds.keys()
    found, before = (
        [node.SerializeToString() for node in nodes(engine, name) if node.op_type == "PagedAttention"]
        for name in (GRAPH, "model.onnx")
    )
    assert found == before


def test_products_in_one_are_gated_without_parting_them(tmp_path: Path) -> None:
    engine = lowered(tiny("llama"), "int4", tmp_path)
    assert {len(node.input) for node in nodes(engine) if node.op_type == "SwiGLU"} == {1}
    assert not any(node.op_type == "Split" for node in nodes(engine))


def test_norms_of_heads_that_do_not_share_a_warp_stay_with_attention(tmp_path: Path) -> None:
    engine = lowered(tiny("qwen3", head_dim=48), "fp16", tmp_path)
    kinds = Counter(node.op_type for node in nodes(engine))
    assert kinds["RotaryQKV"] == 0 and kinds["SwiGLU"]


def test_both_graphs_read_the_same_weights_where_they_lie(tmp_path: Path) -> None:
    engine = lowered(tiny("qwen2"), "bf16", tmp_path)
    listed = {weight.name: (weight.file, weight.offset) for weight in load_weights(tmp_path)}
    graph = onnx.load(str(tmp_path / CudaPlan.of(engine.manifest).custom_ops), load_external_data=False).graph
    outside = [tensor for tensor in graph.initializer if tensor.external_data]
    assert outside and not any(tensor.name.startswith("gate.scale") for tensor in graph.initializer)
    for tensor in outside:
        place = {entry.key: entry.value for entry in tensor.external_data}
        assert listed[tensor.name] == (place["location"], int(place.get("offset", 0)))


@pytest.mark.parametrize(("kind", "first", "second"), [("SwiGLU", 0, 1), ("RotaryQKV", 1, 2)], ids=["gate", "angles"])
def test_graphs_that_compute_otherwise_are_not_published(kind: str, first: int, second: int, tmp_path: Path) -> None:
    engine = lowered(tiny("qwen2"), "fp16", tmp_path)
    runners = [engine.runner(), engine.runner(own_ops=True)]
    check_alike(runners, engine.manifest.vocab_size, LIMITS)
    path = tmp_path / GRAPH
    model = onnx.load(str(path), load_external_data=False)
    for node in model.graph.node:
        if node.op_type == kind:
            node.input[first], node.input[second] = node.input[second], node.input[first]
    onnx.save(model, str(path))
    with pytest.raises(BuildError, match="with and without custom ops compute logits that are"):
        check_alike([engine.runner(), engine.runner(own_ops=True)], engine.manifest.vocab_size, LIMITS)
