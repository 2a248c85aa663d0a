"""The form for TensorRT 8.6 to 10 computes the model: in ONNX Runtime, and as TensorRT-RTX's parser reads it.

Run: pytest tests/builder/test_classic_network.py
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fakes.classic_engines import KINDS, Classic, classic, only_halves
from fakes.definitions import definition, difference
from fakes.tensorrt_engines import ARCHITECTURES, LENGTH, LIMITS, history, steps, tiny
from triune_builder.checkpoint import open_checkpoint
from triune_builder.errors import BuildError
from triune_builder.graph.export import export
from triune_builder.quantize.apply import quantize
from triune_builder.targets.tensorrt.classic import lowering
from triune_builder.targets.tensorrt.classic.network_runner import ClassicNetwork
from triune_builder.targets.tensorrt.precisions import PRECISIONS
from triune_builder.targets.tensorrt.proof import verify_network
from triune_builder.verify.verification import problems
from triune_runtime.manifest import Limits

R1_NANO = Path(__file__).parents[2] / "models/r1-nano/checkpoint"

TOKENS = [int(t) for t in np.random.default_rng(3).integers(0, 256, 30)]
TOLERANCE = 0.02
KNOWN = {  # ops that were seen to run in TensorRT 8.6, and those that its parser's list has for their types
    "Abs", "Add", "And", "Max", "Cast", "Concat", "Div", "Equal", "Gather", "Greater", "IsNaN", "Less", "MatMul", "Mul",
    "Or", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Reshape", "ScatterND", "Sigmoid", "Slice", "Softmax",
    "Sqrt", "Squeeze", "Sub", "TopK", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip
VARIED: list[tuple[str, dict[str, Any]]] = [
    ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1, "num_hidden_layers": 3}),
    ("mistral", {"sliding_window": 4}),
    ("llama", {"tie_word_embeddings": False, "num_key_value_heads": 1}),
    ("qwen3", {"o_bias": True, "num_key_value_heads": 4}),
    ("deepseek_v3", {"kv_lora_rank": 512, "qk_rope_head_dim": 64}),
    ("deepseek_v3", {"q_lora_rank": None, "rope_interleave": False}),
    ("deepseek_v3", {"norm_topk_prob": False, "n_shared_experts": None}),
    # of this seed no token's experts are so near a tie that float16 chooses others
    ("deepseek_v3", {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 0, "seed": 2}),
]


def worst(network: ClassicNetwork, expected: Any) -> float:
    """The largest difference of the logits over all steps; the slots hold another owner's numbers at first."""
    network.forget(0, LIMITS.max_sequences)
    differences = []
    for step in steps(TOKENS):
        found = network.run(*step, [len(step[1][0]) - 1])[:, 0]
        differences += [difference(row, expected(read)) for row, read in zip(found, history(TOKENS, step), strict=True)]
    assert network.best_errors == 0
    return max(differences)


def networks(engine: Classic) -> list[ClassicNetwork]:
    return [engine.network(engine.by_onnx_runtime), engine.network(engine.by_interpreter)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_prompts_chunks_and_ragged_batches_are_the_models(architecture: str, tmp_path: Path) -> None:
    checkpoint = tiny(architecture)
    engine = classic(checkpoint, tmp_path, max_length=LENGTH)
    for network in networks(engine):
        assert worst(network, definition(checkpoint, None, tmp_path)) < TOLERANCE


@pytest.mark.parametrize(("architecture", "changes"), VARIED, ids=lambda x: x if isinstance(x, str) else ",".join(x))
def test_what_configs_vary_is_in_both(architecture: str, changes: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = tiny(architecture, **changes)
    engine = classic(checkpoint, tmp_path, max_length=LENGTH)
    for network in networks(engine):
        assert worst(network, definition(checkpoint, None, tmp_path)) < TOLERANCE


@pytest.mark.parametrize("architecture", ["llama", "deepseek_v3"])
def test_several_logits_of_a_run_are_each_positions_own(architecture: str, tmp_path: Path) -> None:
    for network in networks(classic(tiny(architecture), tmp_path, max_length=LENGTH)):
        every = network.run(0, [TOKENS[:8]], [0], list(range(8)))[0]
        drafts = network.run(1, [TOKENS[:8]], [0], [5, 6, 7, 7])[0]
        assert difference(drafts, every[[5, 6, 7, 7]]) < 1e-3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_graph_has_the_ops_products_and_inputs_that_tensorrt_8_takes(architecture: str, tmp_path: Path) -> None:
    engine = classic(tiny(architecture), tmp_path, max_length=LENGTH)
    for kind in KINDS:
        model = onnx.load(str(engine.graph(kind)), load_external_data=False)
        onnx.checker.check_model(model)
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 16)]
        assert {n.op_type for n in model.graph.node} <= KNOWN
        types = {v.name: v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)}
        assert onnx.TensorProto.INT64 not in types.values()
        shapes = {name: weight.shape for name, weight in engine.weights.items()}
        assert set(shapes) & set(types), "weights are inputs"
        for node in model.graph.node:  # with a weight of two axes, both sides of a product have two
            if node.op_type == "MatMul" and node.input[1] in shapes:
                assert len(shapes[node.input[1]]) in (2, 3), node.name
        assert not any(t.external_data for t in model.graph.initializer)


def test_both_graphs_have_all_weights_as_inputs(tmp_path: Path) -> None:
    engine = classic(tiny("llama", tie_word_embeddings=True), tmp_path, max_length=LENGTH)
    places = sorted((w.offset, w.offset + w.length) for w in engine.stored)
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(places))
    for kind in KINDS:
        model = onnx.load(str(engine.graph(kind)), load_external_data=False)
        own = {"input_ids", "positions", "sequences" if kind == "decode" else "logit_positions"}
        inputs = {x.name for x in model.graph.input if not x.name.startswith("past.")}
        assert inputs - own == {w.name for w in engine.stored}


def test_rows_that_fill_up_a_run_go_to_the_last_position_and_change_nothing(tmp_path: Path) -> None:
    """A run of fixed size is filled up with tokens at the slot's last position, which no sequence has."""
    checkpoint = tiny("llama")
    engine = classic(checkpoint, tmp_path, max_length=LENGTH)
    compute, cache = engine.by_onnx_runtime("prefill"), engine.bundle.cache
    past = {f"past.{c.name}": np.zeros((1, c.heads, engine.capacity, c.dim), np.float16) for c in cache}
    ids = np.array([TOKENS[:8]], np.int32)
    exact = compute(
        {"input_ids": ids, "positions": np.arange(8, dtype=np.int32)[None], "logit_positions": np.int32([7]), **past}
    )
    filled = compute({
        "input_ids": np.pad(ids, [(0, 0), (0, 8)]), "logit_positions": np.int32([7, 7]),
        "positions": np.r_[np.arange(8), np.full(8, engine.capacity - 1)].astype(np.int32)[None], **past,
    })  # fmt: skip
    assert difference(filled["logits"][0], exact["logits"][0]) < 1e-3
    for c in cache:
        one, other = exact[f"present.{c.name}"], filled[f"present.{c.name}"]
        assert difference(one[:, :, : engine.capacity - 1], other[:, :, : engine.capacity - 1]) < 1e-2
    assert engine.capacity > LENGTH


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_the_proof_of_a_network_finds_it_right_and_a_wrong_mask_out(architecture: str, tmp_path: Path) -> None:
    checkpoint = tiny(architecture)
    engine = classic(checkpoint, tmp_path, max_length=LENGTH)
    right = verify_network(engine.network(engine.by_onnx_runtime), LIMITS, checkpoint)
    assert not problems(right, PRECISIONS["fp16"].network)
    for kind in KINDS:
        model = onnx.load(str(engine.graph(kind)))
        for node in model.graph.node:  # of a key at a query's own position, "later" says nothing
            if node.op_type == "Greater" and "slots" in node.input:
                node.op_type = "Less"
        onnx.save(model, str(engine.graph(kind)))
    assert problems(verify_network(engine.network(engine.by_onnx_runtime), LIMITS, checkpoint), PRECISIONS["fp16"].network)


def test_quantized_weights_are_refused() -> None:
    bundle = quantize(export(tiny("llama"), max_length=LENGTH), PRECISIONS["int4"].weights).bundle  # type: ignore[arg-type]
    with pytest.raises(BuildError, match=r"no rule lowers LinearBlocks for TensorRT 8\.6 to 10"):
        lowering.lower(bundle, "prefill", max_length=LENGTH)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "deepseek_v3"])
def test_an_engine_that_chooses_halves_everywhere_is_right(architecture: str, tmp_path: Path) -> None:
    checkpoint = tiny(architecture)
    engine = classic(checkpoint, tmp_path, max_length=LENGTH)
    for kind in KINDS:
        only_halves(engine.graph(kind))
    found = verify_network(engine.network(engine.by_onnx_runtime), LIMITS, checkpoint)
    assert not problems(found, PRECISIONS["fp16"].engine)


def test_r1_nano_in_halves_alone_is_right(tmp_path: Path) -> None:
    """Its scores of what a slot holds of a former owner are larger than any number that could be added to hide them."""
    checkpoint = open_checkpoint(str(R1_NANO), cache=tmp_path)
    engine = classic(checkpoint, tmp_path, max_length=256)
    for kind in KINDS:
        only_halves(engine.graph(kind))
    limits = Limits(max_sequences=4, max_length=256)
    assert not problems(verify_network(engine.network(engine.by_onnx_runtime), limits, checkpoint), PRECISIONS["fp16"].engine)
