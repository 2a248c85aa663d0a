"""What TensorRT's parser makes of a lowered graph computes the model: prompts, chunks, ragged decoding, every precision.

Run: pytest tests/builder/test_tensorrt_network.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from fakes.definitions import definition, difference
from fakes.tensorrt_engines import ARCHITECTURES, LIMITS, Lowered, history, lowered, quantized, steps, tiny
from triune_builder.errors import BuildError
from triune_builder.targets.tensorrt import graph_files, interpreter
from triune_builder.targets.tensorrt.precisions import PRECISIONS
from triune_builder.targets.tensorrt.proof import verify_network
from triune_builder.verify import reference
from triune_builder.verify.verification import problems
from triune_runtime.targets.tensorrt.plan import TensorRtPlan

TOKENS = [int(t) for t in np.random.default_rng(3).integers(0, 256, 30)]
TOLERANCE = {"fp16": 0.02, "bf16": 0.1, "int8": 0.03, "int4": 0.05, "fp8": 0.05}


def worst(engine: Lowered, expected: Any) -> float:
    """The largest difference of the network's logits over all steps; the slots hold another owner's numbers at first.

    Its best tokens must be those of its logits.
    """
    runner = engine.runner()
    runner.forget(0, LIMITS.max_sequences)
    differences = []
    for step in steps(TOKENS):
        found = runner.run(*step, [len(step[1][0]) - 1])[:, 0]
        differences += [difference(row, expected(read)) for row, read in zip(found, history(TOKENS, step), strict=True)]
    assert runner.best_errors == 0
    return max(differences)


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_parsed_network_computes_prompts_chunks_and_ragged_batches(
    architecture: str, precision: str, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {}
    if architecture == "deepseek_v3" and precision != "fp16":  # rounding may choose another expert: let all take part
        changes = {"n_group": 1, "topk_group": 1, "num_experts_per_tok": 8}
    checkpoint = tiny(architecture, **changes)
    engine = lowered(checkpoint, precision, tmp_path)
    plain = quantized(checkpoint, precision) if precision not in ("fp16", "bf16") else None
    assert worst(engine, definition(checkpoint, plain, tmp_path)) < TOLERANCE[precision]


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1, "num_hidden_layers": 3}),
        ("mistral", {"sliding_window": 4}),
        ("llama", {"tie_word_embeddings": False, "num_key_value_heads": 1}),
        ("qwen3", {"o_bias": True, "num_key_value_heads": 4}),
        ("deepseek_v3", {"kv_lora_rank": 512, "qk_rope_head_dim": 64}),  # R1's 576: no fused kernel, written out
        ("deepseek_v3", {"q_lora_rank": None, "rope_interleave": False}),
        ("deepseek_v3", {"norm_topk_prob": False, "n_shared_experts": None}),
        ("deepseek_v3", {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 0}),
    ],
    ids=lambda x: x if isinstance(x, str) else ",".join(x),
)
def test_what_configs_vary_is_in_the_parsed_network(architecture: str, changes: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = tiny(architecture, **changes)
    engine = lowered(checkpoint, "fp16", tmp_path)
    assert worst(engine, definition(checkpoint, None, tmp_path)) < TOLERANCE["fp16"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_onnx_runtime_computes_the_same_of_the_same_file(architecture: str, tmp_path: Path) -> None:
    engine = lowered(tiny(architecture), "fp16", tmp_path)
    session = onnxruntime.InferenceSession(str(engine.graph), providers=["CPUExecutionProvider"])
    plan = TensorRtPlan.of(engine.manifest)
    assert plan is not None
    pools = {c.name: np.zeros((4, c.heads, plan.capacity, c.dim), np.float16) for c in engine.bundle.cache}
    runner = engine.runner()
    for first, ids, held in steps(TOKENS):
        begin, last = np.array(held), [len(ids[0]) - 1]
        stop = first + len(ids)
        feeds = {"input_ids": np.array(ids), "positions": begin[:, None] + np.arange(len(ids[0])), "starts": begin}
        feeds |= {"logit_positions": np.array(last)} | {f"past.{name}": pool[first:stop] for name, pool in pools.items()}
        logits, *grown = session.run(["logits", *(f"present.{name}" for name in pools)], feeds)
        for pool, array in zip(pools.values(), grown, strict=True):
            pool[first:stop] = array
        assert difference(runner.run(first, ids, held, last), logits) < 0.02


@pytest.mark.parametrize("architecture", ["llama", "deepseek_v3"])
def test_a_batch_of_several_logits_gives_each_position(architecture: str, tmp_path: Path) -> None:
    engine = lowered(tiny(architecture), "fp16", tmp_path)
    runner = engine.runner()
    every = runner.run(0, [TOKENS[:8]], [0], list(range(8)))[0]
    drafts = runner.run(1, [TOKENS[:8]], [0], [5, 6, 7])[0]
    assert difference(drafts, every[5:]) < 1e-3


def without_mask(graph: Path) -> None:
    """Let every attention say how many keys there are by `nonpad_kv_seqlen`, as ONNX has it, instead of by its mask."""
    model = onnx.load(str(graph), load_external_data=False)
    helper = onnx.helper
    nodes = [
        helper.make_node("Shape", ["input_ids"], ["new.shape"], start=1, end=2),
        helper.make_node("Add", ["starts", "new.shape"], ["lengths"]),
    ]
    for node in model.graph.node:
        if node.op_type == "Attention":
            node.input[:] = [*node.input[:3], "", "", "", "lengths"]
            node.attribute.append(helper.make_attribute("is_causal", 1))
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, str(graph))


def test_a_mask_replaced_by_nonpad_kv_seqlen_is_right_in_onnx_runtime_and_over_the_budget_in_tensorrt(tmp_path: Path) -> None:
    checkpoint = tiny("llama")
    engine = lowered(checkpoint, "fp16", tmp_path)
    right = verify_network(engine.runner(), LIMITS, checkpoint)
    assert not problems(right, PRECISIONS["fp16"].network)
    without_mask(engine.graph)
    session = onnxruntime.InferenceSession(str(engine.graph), providers=["CPUExecutionProvider"])
    feeds: dict[str, Any] = {
        "input_ids": np.array([TOKENS[:8]]),
        "positions": np.arange(8)[None],
        "starts": np.array([0]),
        "logit_positions": np.array([7]),
    }
    feeds |= {f"past.{c.name}": np.zeros((1, c.heads, 64, c.dim), np.float16) for c in engine.bundle.cache}
    expected = next(reference.score(checkpoint.config, checkpoint.weights, [TOKENS[:8]], [[7]])).logits[0]
    assert difference(session.run(["logits"], feeds)[0][0, 0], expected) < 0.02
    found = verify_network(engine.runner(), LIMITS, checkpoint)
    assert found.decode is not None and found.decode.maximum > 0.3
    assert any("when decoding" in problem for problem in problems(found, PRECISIONS["fp16"].network))
    with pytest.raises(BuildError, match=r"would drop .* nonpad_kv_seqlen"):
        graph_files.lint(engine.graph)


def test_an_input_that_the_parser_leaves_unread_is_refused(tmp_path: Path) -> None:
    engine = lowered(tiny("llama"), "fp16", tmp_path)
    model = onnx.load(str(engine.graph), load_external_data=False)
    model.graph.input.append(onnx.helper.make_tensor_value_info("lengths", onnx.TensorProto.INT64, ["batch"]))
    for node in model.graph.node:
        if node.op_type == "Attention":
            node.input[:] = [*node.input[:3], "", "", "", "lengths"]
    onnx.save(model, str(engine.graph))
    with pytest.raises(BuildError, match="left out what reads lengths"):
        engine.parse()


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int4"])
def test_weights_that_are_not_kept_as_float32_give_the_same_bits(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = lowered(tiny("llama"), precision, tmp_path)
    plain = engine.runner().run(0, [TOKENS[:8]], [0], [7])
    monkeypatch.setattr(interpreter, "_ROOM", 0)
    assert np.array_equal(engine.runner().run(0, [TOKENS[:8]], [0], [7]), plain)


def test_weights_that_float16_cannot_hold_are_refused_by_name(tmp_path: Path) -> None:
    checkpoint = tiny("llama")
    checkpoint.weights["model.layers.0.mlp.down_proj.weight"].array[0, 0] = 1e5
    with pytest.raises(BuildError, match=r"down_proj.weight has numbers up to 1e\+05, too large for float16"):
        lowered(checkpoint, "fp16", tmp_path)
    lowered(checkpoint, "bf16", tmp_path)
