"""The proof of a CUDA engine without a GPU sees what is wrong with a graph, and refuses what ONNX Runtime would.

Run: pytest tests/builder/test_cuda_proof.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fakes.cuda_graphs import LENGTH, LIMITS, Lowered, lowered, tiny
from fakes.tiny_llama import FakeCheckpoint
from triune_builder.targets.cuda.interpreter import Interpreter
from triune_builder.targets.cuda.interpreter_ops import GraphError
from triune_builder.targets.cuda.network_runner import Item
from triune_builder.targets.cuda.precisions import PRECISIONS
from triune_builder.targets.cuda.proof import verify_network
from triune_builder.verify.verification import problems
from triune_runtime.targets.device.stored import WEIGHTS, load_weights

TOKENS = tuple(int(t) for t in np.random.default_rng(3).integers(0, 256, 40))


def found(engine: Lowered, checkpoint: FakeCheckpoint, precision: str = "fp16") -> list[str]:
    """What is over the budget."""
    return problems(verify_network(engine.runner(), LIMITS, checkpoint), PRECISIONS[precision].network)


def edit(engine: Lowered, change: Callable[[Any], None], kind: str = "PagedAttention") -> None:
    """Let `change` spoil every node of that kind."""
    path = engine.folder / engine.manifest.engine
    model = onnx.load(str(path), load_external_data=False)
    nodes = [node for node in model.graph.node if node.op_type == kind]
    assert nodes, f"the graph has no {kind}"
    for node in nodes:
        change(node)
    onnx.save(model, str(path))


def without(*names: str) -> Callable[[Any], None]:
    def change(node: Any) -> None:
        kept = [attribute for attribute in node.attribute if attribute.name not in names]
        assert len(kept) < len(node.attribute)
        del node.attribute[:]
        node.attribute.extend(kept)

    return change


def leave_out(*inputs: int) -> Callable[[Any], None]:
    def change(node: Any) -> None:
        for number in inputs:
            assert node.input[number]
            node.input[number] = ""

    return change


def say(name: str, value: Any) -> Callable[[Any], None]:
    def change(node: Any) -> None:
        without(name)(node)
        node.attribute.append(onnx.helper.make_attribute(name, value))

    return change


@pytest.mark.parametrize(
    ("architecture", "changes", "spoil"),
    [
        ("llama", {}, say("do_rotary", 0)),
        ("llama", {}, say("scale", 0.3)),
        ("qwen3", {}, leave_out(12, 13)),
        ("qwen3", {}, without("qk_norm_epsilon")),
        ("mistral", {"sliding_window": 5}, without("local_window_size")),
        ("mistral", {"sliding_window": 5}, say("local_window_size", 6)),
        ("deepseek_v3", {}, say("rotary_interleaved", 0)),
        ("deepseek_v3", {}, say("rotary_offset", 0)),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_graph_that_attends_otherwise_is_over_the_budget(
    architecture: str, changes: dict[str, Any], spoil: Callable[[Any], None], tmp_path: Path
) -> None:
    more = {"n_group": 1, "topk_group": 1, "num_experts_per_tok": 8} if architecture == "deepseek_v3" else {"rms_norm_eps": 0.1}
    checkpoint = tiny(architecture, **more, **changes)
    engine = lowered(checkpoint, "fp16", tmp_path)
    assert not found(engine, checkpoint)
    edit(engine, spoil)
    assert any("logits error when decoding" in problem for problem in found(engine, checkpoint))


def test_gates_are_exact_however_large_their_numbers_are(tmp_path: Path) -> None:
    checkpoint = tiny("llama")
    for number in range(2):
        checkpoint.weights[f"model.layers.{number}.mlp.up_proj.weight"].array[:] *= 3e4
        checkpoint.weights[f"model.layers.{number}.mlp.down_proj.weight"].array[:] /= 3e4
    engine = lowered(checkpoint, "bf16", tmp_path)
    assert not found(engine, checkpoint, "bf16")
    edit(engine, say("epsilon", 2.0**26), "GatedRMSNorm")
    assert found(engine, checkpoint, "bf16")


def test_a_list_of_weights_that_is_not_the_graphs_is_refused(tmp_path: Path) -> None:
    checkpoint = tiny("llama")
    engine = lowered(checkpoint, "fp16", tmp_path)
    path = tmp_path / WEIGHTS
    rows = json.loads(path.read_text())
    path.write_text(json.dumps(rows[1:]))
    with pytest.raises(GraphError, match=f"the list of weights has {rows[0][0]} as None"):
        engine.runner()
    path.write_text(json.dumps([*rows, ["spare", *rows[0][1:]]]))
    with pytest.raises(GraphError, match="the list of weights has spare"):
        engine.runner()
    name, dtype, shape, *place = rows[0]
    path.write_text(json.dumps([[name, dtype, shape[::-1], *place], *rows[1:]]))
    with pytest.raises(GraphError, match=name):
        engine.runner()
    file, offset, length = place
    path.write_text(json.dumps([[name, dtype, shape, file, offset + 4096, length], *rows[1:]]))
    assert found(engine, checkpoint)


def test_what_the_op_would_refuse_or_read_wrongly_is_refused(tmp_path: Path) -> None:
    engine = lowered(tiny("llama"), "fp16", tmp_path)
    interpreter = Interpreter(tmp_path / engine.manifest.engine, load_weights(tmp_path))
    pool = {f"past.{c.name}": np.zeros((4, 16, c.heads, c.dim), np.float16) for c in engine.manifest.cache}
    good: dict[str, Any] = pool | {
        "input_ids": np.array(TOKENS[:5]),
        "cu_seqlens": np.array([0, 3, 5], np.int32),
        "past_seqlens": np.array([0, 14], np.int32),
        "block_table": np.array([[2, 0], [1, 3]], np.int32),
        "attention_metadata": np.array([3, 16, 16], np.int32),
        "logits_at": np.array([2, 4]),
    }
    assert interpreter.run(good)["logits"].shape == (2, 256)
    for name, value, said in (
        ("cu_seqlens", [0, 3, 4], "is told lengths"),
        ("past_seqlens", [0, -1], "is told lengths"),
        ("past_seqlens", [0, 31], "do not fit in 2 blocks"),
        ("block_table", [[4, 0], [1, 3]], "is told blocks"),
        ("block_table", [[2, 0], [-1, 3]], "is told blocks"),
        ("attention_metadata", [2, 16, 16], "is told bounds"),
        ("attention_metadata", [3, 15, 15], "is told bounds"),
        ("attention_metadata", [3, 16, 17], "is told bounds"),
    ):
        with pytest.raises(GraphError, match=said):
            interpreter.run(good | {name: np.array(value, np.int32)})
    with pytest.raises(GraphError, match="input cu_seqlens is int64"):
        interpreter.run(good | {"cu_seqlens": np.array([0, 3, 5])})
    with pytest.raises(GraphError, match="inputs are"):
        interpreter.run(good | {"spare": np.array([0])})
    long = np.arange(LENGTH + 1) % 256
    with pytest.raises(GraphError, match=f"rotates position {LENGTH} by a table of {LENGTH}"):
        interpreter.run(
            {f"past.{c.name}": np.zeros((5, 16, c.heads, c.dim), np.float16) for c in engine.manifest.cache}
            | {
                "input_ids": long,
                "cu_seqlens": np.array([0, len(long)], np.int32),
                "past_seqlens": np.array([0], np.int32),
                "block_table": np.arange(5, dtype=np.int32)[None],
                "attention_metadata": np.array([len(long)] * 3, np.int32),
                "logits_at": np.array([0]),
            }
        )


def test_floats_of_two_types_in_one_op_are_refused(tmp_path: Path) -> None:
    engine = lowered(tiny("deepseek_v3"), "bf16", tmp_path)
    edit(engine, say("to", onnx.TensorProto.BFLOAT16), "Cast")
    with pytest.raises(GraphError, match="reads bfloat16 and float"):
        engine.runner().run([Item(0, 0, TOKENS[:3])])


@pytest.mark.parametrize("precision", ["bf16", "int4"])
def test_weights_that_are_not_kept_as_float32_give_the_same_bits(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = lowered(tiny("llama"), precision, tmp_path)
    items = [Item(0, 0, TOKENS[:8]), Item(1, 0, TOKENS[3:5])]
    plain = engine.runner().run(items)
    monkeypatch.setattr("triune_builder.targets.cuda.interpreter._ROOM", 0)
    for rows, again in zip(plain, engine.runner().run(items), strict=True):
        assert np.array_equal(rows, again)


def test_memory_that_a_sequence_shares_is_read_and_what_lies_beyond_it_is_not(tmp_path: Path) -> None:
    engine = lowered(tiny("llama"), "fp16", tmp_path)
    interpreter = Interpreter(tmp_path / engine.manifest.engine, load_weights(tmp_path))

    def run(tokens: tuple[int, ...], past: int, table: list[int], pool: dict[str, Any]) -> Any:
        feeds = {
            "input_ids": np.array(tokens),
            "cu_seqlens": np.array([0, len(tokens)], np.int32),
            "past_seqlens": np.array([past], np.int32),
            "block_table": np.array([table], np.int32),
            "attention_metadata": np.array([len(tokens), past + len(tokens), 0], np.int32),
            "logits_at": np.array([len(tokens) - 1]),
        }
        return interpreter.run(feeds | pool)["logits"]

    def empty() -> dict[str, Any]:
        return {f"past.{c.name}": np.full((6, 16, c.heads, c.dim), 50, np.float16) for c in engine.manifest.cache}

    pool = empty()
    whole = run(TOKENS[:20], 0, [4, 1], pool)
    shared = run(TOKENS[16:20], 16, [4, 3], pool)  # the first block as it is, a second of its own
    assert np.allclose(whole, shared, rtol=1e-2, atol=1e-2)
    assert np.array_equal(run(TOKENS[:20], 0, [4, 1, 5], empty()), whole)
