"""DeepSeek-V3: what of its config and weights is understood, its latent cache, and its engine in every precision.

Run: pytest tests/builder/test_deepseek_v3.py (the comparison with transformers is in test_deepseek_v3_torch.py)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fakes.engines import Engine, allowed_batch_error, float_logits, made_up_maxima, make_engine
from fakes.tiny_deepseek import R1_CONFIG, tiny_checkpoint, tiny_config, tiny_weights
from fakes.tiny_llama import FakeCheckpoint, FakeTensor
from triune_builder.errors import BuildError
from triune_builder.graph.arch.deepseek_config import Config
from triune_builder.graph.export import export
from triune_builder.graph.rope import YarnScaling, read_rope
from triune_builder.quantize.apply import quantize
from triune_builder.targets import onnx_files
from triune_builder.targets.cpu.lowering import lower
from triune_builder.targets.cpu.precisions import find_precision
from triune_builder.verify import reference
from triune_builder.verify.measure import difference
from triune_builder.verify.reference_rope import turning
from triune_runtime.manifest import EngineManifest
from triune_runtime.runner import Work

# Sizes that blocks of 32 divide. All experts are chosen: a rounding that changes a choice says nothing of the arithmetic.
BLOCK_SIZES = {
    "kv_lora_rank": 32,
    "v_head_dim": 16,
    "qk_nope_head_dim": 24,
    "num_experts_per_tok": 8,
    "n_group": 1,
    "topk_group": 1,
}
TOLERANCE = {"fp32": 1e-5, "int8": 0.3, "int4": 0.3, "rows": 0.1, "w8a8": 0.3}  # root mean square; int8 activations are rounded
TOKENS = tuple(np.random.default_rng(3).integers(0, 256, 40).tolist())


@pytest.fixture(scope="module", params=list(TOLERANCE))
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return make_engine(tiny_checkpoint(**BLOCK_SIZES), request.param, tmp_path_factory.mktemp(request.param), max_length=64)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"q_lora_rank": None, "attention_bias": True},
        {"rope_scaling": R1_CONFIG["rope_scaling"] | {"original_max_position_embeddings": 16}, "n_shared_experts": 2},
        {"norm_topk_prob": False, "n_shared_experts": 0, "tie_word_embeddings": True},
        {"first_k_dense_replace": 0, "moe_layer_freq": 2, "num_attention_heads": 3},
    ],
    ids=["plain", "full rank", "yarn", "not normalized", "every second"],
)
def test_float_graph_equals_the_reference_at_prefill_chunks_and_decode(changes: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(**changes)
    tokens = list(TOKENS[:24])
    (scored,) = reference.score(checkpoint.config, checkpoint.weights, [tokens], [[23]])
    bundle = export(checkpoint, max_length=64)  # type: ignore[arg-type]
    for chunks in ([tokens], [tokens[:9], tokens[9:20], tokens[20:]], [tokens[:20], *([t] for t in tokens[20:])]):
        got = float_logits(bundle, tmp_path, chunks)
        assert np.abs(got - scored.logits).max() < 1e-4 * np.abs(scored.logits).max()


def test_lowered_engine_equals_the_definition_in_every_precision(engine: Engine) -> None:
    steps = [
        [Work(0, 0, TOKENS[:20])],
        [Work(1, 0, TOKENS[5:12])],
        [Work(0, 20, TOKENS[20:21]), Work(1, 7, TOKENS[12:13])],
        [Work(2, 0, TOKENS[:9]), Work(0, 21, TOKENS[21:22]), Work(1, 8, TOKENS[13:14])],
        [Work(2, 9, TOKENS[9:16])],
        [Work(1, 9, TOKENS[14:15]), Work(0, 22, TOKENS[22:23]), Work(2, 16, TOKENS[16:17])],
    ]
    history: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for work in steps:
        for row, item in zip(engine.runner.run(work), work, strict=True):
            history[item.slot] += item.tokens
            expected = engine.definition(history[item.slot])
            error = np.sqrt(np.mean((row - expected) ** 2) / np.mean(expected**2))
            assert error < TOLERANCE[engine.precision], item


def test_a_sequence_has_the_same_bits_alone_and_in_a_batch(engine: Engine) -> None:
    for start in (10, 23):
        for slot in range(4):
            engine.runner.run([Work(slot, 0, TOKENS[slot : slot + start])])
        alone = engine.runner.run([Work(0, start, (7,))])[0]
        for mates in range(2, 5):
            together = engine.runner.run([Work(slot, start, (7 + slot,)) for slot in range(mates)])[0]
            assert difference(alone, together) <= allowed_batch_error(engine.precision), mates


def test_sparse_experts_have_the_same_bits_alone_and_in_a_batch(tmp_path: Path) -> None:
    """With two of eight experts a token, mates change how many rows each expert sees."""
    sizes = {**BLOCK_SIZES, "num_experts_per_tok": 2, "n_group": 4, "topk_group": 2}
    for precision in TOLERANCE:
        (tmp_path / precision).mkdir()
        runner = make_engine(tiny_checkpoint(**sizes), precision, tmp_path / precision, slots=16).runner
        for slot in range(16):
            runner.run([Work(slot, 0, TOKENS[slot : slot + 10])])
        together = runner.run([Work(slot, 10, (slot,)) for slot in range(16)])
        for slot in range(16):
            if slot:
                runner.copy_slot(slot, 0, 10)
            alone = runner.run([Work(0, 10, (slot,))])[0]
            assert difference(alone, together[slot]) <= allowed_batch_error(precision), (precision, slot)


@pytest.mark.parametrize("rank", [None, 32])
def test_a_single_head_has_the_same_bits_alone_and_in_a_batch(rank: int | None, tmp_path: Path) -> None:
    """Its products with the up-projections are no batch of products, but one over the rows of all sequences."""
    runner = make_engine(tiny_checkpoint(num_attention_heads=1, q_lora_rank=rank), "fp32", tmp_path, slots=8).runner
    for start in (1, 10, 23):
        for slot in range(8):
            runner.run([Work(slot, 0, TOKENS[slot : slot + start])])
        alone = runner.run([Work(0, start, (7,))])[0]
        for mates in range(2, 9):
            together = runner.run([Work(slot, start, (7 + slot,)) for slot in range(mates)])[0]
            assert np.array_equal(alone, together), (start, mates)


def test_a_token_keeps_its_latent_and_nothing_else(engine: Engine) -> None:
    config = tiny_config(**BLOCK_SIZES)
    per_layer = (config["kv_lora_rank"] + config["qk_rope_head_dim"]) * 4
    assert engine.manifest.kv_bytes_per_token == per_layer * config["num_hidden_layers"]
    assert len(engine.manifest.cache) == config["num_hidden_layers"]


def test_the_manifest_keeps_the_second_output(engine: Engine, tmp_path: Path) -> None:
    engine.manifest.save(tmp_path)
    cache = EngineManifest.load(tmp_path).cache
    assert cache == engine.manifest.cache
    assert cache[0].output_names == ("present.0.latent", "present.0.latent.2")


def test_graphs_pass_the_onnx_checker(tmp_path: Path) -> None:
    onnx_files.write(export(tiny_checkpoint(), max_length=64), tmp_path)  # type: ignore[arg-type]
    onnx.checker.check_model(str(tmp_path / onnx_files.MODEL), full_check=True)


def test_exporting_reads_no_weight_and_writing_reads_experts_one_by_one(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint()
    bundle = lower(export(checkpoint, max_length=64))  # type: ignore[arg-type]
    assert not any(t.reads for t in checkpoint.weights.values())
    onnx_files.write(bundle, tmp_path)
    reads = {name: len(t.reads) for name, t in checkpoint.weights.items() if ".experts." in name}
    assert set(reads.values()) == {1}


def test_routers_stay_float_and_experts_are_quantized() -> None:
    checkpoint = tiny_checkpoint(**BLOCK_SIZES)
    for precision, scheme in {"int8": "blocks8", "int4": "blocks4", "w8a8": "blocks8"}.items():
        bundle = export(checkpoint, max_length=64)  # type: ignore[arg-type]
        quantized = quantize(bundle, find_precision(precision), made_up_maxima(checkpoint))
        schemes = {c.name: c.scheme for c in quantized.changes}
        assert schemes["model.layers.1.mlp.experts.gate_up_proj.weight"] == scheme
        assert schemes["model.layers.2.mlp.experts.down_proj.weight"] == scheme
        assert not any(".gate.weight" in name for name in schemes)


def test_quantization_errors_of_experts_are_measured(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(**BLOCK_SIZES)
    errors = {}
    for precision in ("int8", "int4"):
        bundle = export(checkpoint, max_length=64)  # type: ignore[arg-type]
        quantized = quantize(bundle, find_precision(precision))
        onnx_files.write(lower(quantized.bundle), tmp_path)
        errors[precision] = [c.error for c in quantized.changes if ".experts." in c.name]
    assert len(errors["int8"]) == 4
    assert all(1e-3 < e < 1e-2 for e in errors["int8"])
    assert all(2e-2 < e < 2e-1 for e in errors["int4"])


def test_the_published_config_is_understood() -> None:
    cfg = Config.read(R1_CONFIG)
    assert isinstance(cfg.rope.scaling, YarnScaling)
    assert cfg.softmax_scale == pytest.approx(192**-0.5 * (0.1 * np.log(40) + 1) ** 2)
    assert [cfg.has_experts(i) for i in (2, 3, 60)] == [False, True, True]
    assert sum(c.heads * c.dim for c in cfg.cache) == 61 * 576


@pytest.mark.parametrize("factor", [4.0, 40.0])
@pytest.mark.parametrize("old", [64, 4096])
@pytest.mark.parametrize("mscale", [1.0, 0.707])
def test_yarn_tables_equal_the_reference(factor: float, old: int, mscale: float) -> None:
    scaling = R1_CONFIG["rope_scaling"] | {"factor": factor, "original_max_position_embeddings": old, "mscale": mscale}
    cos, sin = read_rope(R1_CONFIG | {"rope_scaling": scaling}, 64).tables(500)
    turns = turning(R1_CONFIG | {"rope_scaling": scaling}, 64, 4096)
    np.testing.assert_allclose(cos, turns.amplitude * np.cos(turns.angles(500)), atol=1e-6)
    np.testing.assert_allclose(sin, turns.amplitude * np.sin(turns.angles(500)), atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"topk_method": "greedy"}, "topk_method = 'greedy'"),
        ({"scoring_func": "tanh"}, "scoring_func = 'tanh'"),
        ({"scoring_func": "softmax"}, "scoring_func = 'softmax'.*; hint: write .*sigmoid"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"sliding_window": 512}, "sliding_window = 512"),
        ({"index_topk": 2048}, "index_topk = 2048"),
        ({"qk_head_dim": 128}, "qk_head_dim = 128"),
        ({"num_key_value_heads": 8}, "num_key_value_heads = 8"),
        ({"n_group": 7}, "8 of 256 experts cannot be chosen from 4 of 7 groups"),
        ({"topk_group": 9}, "from 9 of 8 groups"),
        ({"rope_scaling": {"type": "yarn", "factor": 40, "sharpness": 2}}, "factor, sharpness"),
    ],
)
def test_what_the_architecture_does_not_understand_stops_it(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        Config.read(R1_CONFIG | changes)


def test_weights_that_are_missing_spare_or_misshapen_are_named() -> None:
    config = tiny_config()
    whole = tiny_weights(config)
    expert = "model.layers.1.mlp.experts.5.up_proj.weight"
    odd = FakeTensor(np.zeros((16, 64), np.float32))
    cases = [
        ({n: t for n, t in whole.items() if n != expert}, f"no weight {expert}"),
        (whole | {"model.layers.1.mlp.experts.8.up_proj.weight": whole[expert]}, r"read by nothing: .*experts\.8\.up_proj"),
        (whole | {f"model.layers.1.mlp.experts.5.{n}_proj.weight": odd for n in ("gate", "up")}, r"experts of .* have shapes"),
        (whole | {"model.layers.0.self_attn.kv_b_proj.weight": odd}, r"kv_b_proj\.weight is \(16, 64\)"),
    ]
    for weights, message in cases:
        checkpoint = FakeCheckpoint(config=config, weights=weights, tokenizer_json="")
        with pytest.raises(BuildError, match=message):
            export(checkpoint, max_length=8)  # type: ignore[arg-type]


def test_sizes_that_the_target_cannot_run_are_refused() -> None:
    with pytest.raises(BuildError, match=r"latent has 21 \+ 8 numbers"):
        lower(export(tiny_checkpoint(kv_lora_rank=21), max_length=8))  # type: ignore[arg-type]
    odd = export(tiny_checkpoint(**BLOCK_SIZES | {"moe_intermediate_size": 24, "n_shared_experts": 0}), max_length=8)  # type: ignore[arg-type]
    with pytest.raises(BuildError, match=r"experts\.down_proj\.weight have 24 columns"):
        quantize(odd, find_precision("int8"))
