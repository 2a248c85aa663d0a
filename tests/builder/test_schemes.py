"""A scheme says what it needs and what it takes, and both are true. Run: pytest tests/builder/test_schemes.py"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.block_tensors import in_blocks
from fakes.engines import float_logits, made_up_maxima
from fakes.safetensors_writer import to_fp8, write_tensors
from fakes.tensorrt_engines import LENGTH, tiny
from fakes.tiny_llama import FakeTensor, byte_tokenizer
from triune_builder.checkpoint import Fp8Tensor, open_checkpoint
from triune_builder.errors import BuildError
from triune_builder.graph.export import GraphBundle, export
from triune_builder.graph.weights import WeightSource
from triune_builder.quantize.apply import quantize
from triune_builder.quantize.change import Change
from triune_builder.quantize.policy import FLOAT, Precision
from triune_builder.quantize.schemes import SCHEMES, needs
from triune_builder.quantize.schemes.blocks import BlockCodes, Blocks
from triune_builder.quantize.schemes.fp8 import Fp8
from triune_builder.quantize.statistics import MAXIMA, Array, Observe, Statistic, gather
from triune_builder.targets import calibration, onnx_files
from triune_builder.targets.calibration import calibrate
from triune_builder.targets.cpu import lowering as cpu
from triune_builder.targets.cpu.precisions import PRECISIONS
from triune_builder.targets.tensorrt import lowering as tensorrt
from triune_builder.targets.tensorrt import precisions as tensorrt_precisions

SQUARES = Statistic("squares", lambda x: np.asarray(x.T @ x))


def written(bundle: GraphBundle, change: Change) -> int:
    """Bytes of all that the lowered graph reads of one weight."""
    values = bundle.model.graph.initializers.items()
    found = [v.const_value.nbytes for name, v in values if name.startswith(f"{change.name}.") and v.const_value]
    assert found, change.name
    return sum(found)


@pytest.mark.parametrize("architecture", ["llama", "deepseek_v3"])
@pytest.mark.parametrize("precision", ["int8", "int4", "w8a8"])
def test_a_scheme_takes_the_bytes_that_it_says_on_a_cpu(architecture: str, precision: str) -> None:
    checkpoint = tiny(architecture, moe_intermediate_size=64) if architecture == "deepseek_v3" else tiny(architecture)
    done = quantize(export(checkpoint, max_length=LENGTH), PRECISIONS[precision].weights, made_up_maxima(checkpoint))  # type: ignore[arg-type]
    lowered = cpu.lower(done.bundle)
    assert {c.name: c.bytes_after for c in done.changes} == {c.name: written(lowered, c) for c in done.changes}


@pytest.mark.parametrize("architecture", ["llama", "deepseek_v3"])
@pytest.mark.parametrize("precision", ["int8", "int4", "fp8"])
def test_a_scheme_takes_the_bytes_that_it_says_in_tensorrt(architecture: str, precision: str) -> None:
    rules = tensorrt_precisions.PRECISIONS[precision]
    done = quantize(export(tiny(architecture), max_length=LENGTH), rules.weights)  # type: ignore[arg-type]  # a fake
    lowered = tensorrt.lower(done.bundle, max_length=LENGTH, dtype=rules.dtype)
    assert {c.name: c.bytes_after for c in done.changes} == {c.name: written(lowered, c) for c in done.changes}


@given(rows=st.integers(1, 9), blocks=st.integers(1, 9), name=st.sampled_from(sorted(SCHEMES)), seed=st.integers(0, 99))
def test_parts_have_the_shapes_and_types_that_the_graph_is_told(rows: int, blocks: int, name: str, seed: int) -> None:
    scheme, columns = SCHEMES[name], 32 * blocks
    weight = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    codes = scheme.make(WeightSource("w", (FakeTensor(weight),)), {})
    for part in scheme.parts(rows, columns):
        made = part.take(codes)
        assert made.shape == part.shape and made.dtype == part.dtype.numpy()
    assert codes.values().shape == weight.shape and codes.values(slice(0, 1)).shape == (1, columns)


def test_every_rule_of_every_precision_names_a_scheme() -> None:
    rules = [row.weights for rows in (PRECISIONS, tensorrt_precisions.PRECISIONS) for row in rows.values()]
    assert {p.name for p in rules if needs(p)} == {"w8a8"}
    assert {name for p in rules for name in p.schemes} == {FLOAT, *SCHEMES}
    with pytest.raises(BuildError, match=r"no scheme 'blocks5'; known: float, blocks4,"):
        needs(Precision(name="odd", linear=(("*", "blocks5"),)))


def test_w8a8_rounds_no_whole_row_where_outliers_are() -> None:
    w8a8 = PRECISIONS["w8a8"].weights
    blocks = ["mlp.down_proj", "mlp.shared_experts.down_proj", "self_attn.qkv_proj", "self_attn.q_proj"]
    rows = ["self_attn.o_proj", "self_attn.down_proj", "mlp.gate_up_proj", "mlp.shared_experts.gate_up_proj"]
    assert {w8a8.scheme(name) for name in ("lm_head.weight", *(f"model.layers.3.{b}.weight" for b in blocks))} == {"blocks8"}
    assert {w8a8.scheme(f"model.layers.3.{row}.weight") for row in rows} == {"w8a8"}


def test_a_statistic_is_of_all_tokens_and_is_measured_once(tmp_path: Path) -> None:
    x, kept = np.random.default_rng(0).normal(size=(5, 3)), tmp_path / "kept.npz"
    runs: list[str] = []

    def run(observe: Observe) -> None:
        runs.append("ran")
        observe("a.weight", x)

    assert gather(frozenset(), run, kept) == {} and not runs and not kept.exists()
    for _ in range(2):
        found = gather(frozenset({MAXIMA, SQUARES}), run, kept)
        assert np.array_equal(found[MAXIMA]["a.weight"], np.abs(x).max(0))
        assert np.array_equal(found[SQUARES]["a.weight"], x.T @ x)
    assert runs == ["ran"]


@dataclass(frozen=True)
class Toy(Blocks):
    """A scheme of a statistic of its own, which notes what it was given."""

    bits: int = 8
    needs: frozenset[Statistic] = frozenset({SQUARES})
    given: dict[str, tuple[int, Array]] = field(default_factory=dict)

    def make(self, source: WeightSource, observed: Mapping[Statistic, Array]) -> BlockCodes:
        self.given[source.name] = source.shape[1], observed[SQUARES]
        return super().make(source, observed)


def test_a_scheme_that_needs_another_statistic_only_declares_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy, checkpoint = Toy(), tiny("llama")
    texts = {name: ["a few words to be observed on"] for name in ("calibration", "evaluation", "prompts")}
    checkpoint = dataclasses.replace(checkpoint, verification=texts)
    monkeypatch.setitem(SCHEMES, "toy", toy)  # type: ignore[arg-type]  # a dict
    precision = Precision(name="toy", linear=(("lm_head.weight", FLOAT), ("*", "toy")))
    statistics = calibrate(checkpoint, precision, tmp_path)  # type: ignore[arg-type]  # a fake
    monkeypatch.setattr(calibration, "observe_inputs", None)  # what was gathered is kept
    again = calibrate(checkpoint, precision, tmp_path)  # type: ignore[arg-type]
    assert statistics.keys() == again.keys() == {SQUARES}
    assert all(np.array_equal(statistics[SQUARES][name], again[SQUARES][name]) for name in statistics[SQUARES])
    done = quantize(export(checkpoint, max_length=LENGTH), precision, again)  # type: ignore[arg-type]
    onnx_files.write(done.bundle, tmp_path)
    assert done.smoothed == [] and len(toy.given) == len(done.changes) == 8
    assert all(squares.shape == (columns, columns) for columns, squares in toy.given.values())
    assert np.array_equal(toy.given["model.layers.1.mlp.gate_up_proj.weight"][1],
                          statistics[SQUARES]["model.layers.1.mlp.up_proj.weight"])  # fmt: skip


def test_only_linears_of_a_scheme_that_needs_maxima_are_smoothed() -> None:
    checkpoint = tiny("llama")
    precision = Precision(name="mixed", linear=(("*.mlp.*", "w8a8"), ("*", "blocks8")))
    done = quantize(export(checkpoint, max_length=LENGTH), precision, made_up_maxima(checkpoint))  # type: ignore[arg-type]
    assert needs(precision) == {MAXIMA}
    assert len(done.smoothed) == 4 and all(".mlp." in name for name in done.smoothed)


def test_a_table_in_blocks_with_minima_keeps_its_values(tmp_path: Path) -> None:
    """Rows of a table have no offsets: blocks whose zero is not the middle code cannot be carried over as they are."""
    checkpoint, name = tiny("llama"), "model.embed_tokens.weight"
    blocked = in_blocks(checkpoint.weights[name].array)
    checkpoint = dataclasses.replace(checkpoint, weights={**checkpoint.weights, name: blocked})
    plain = float_logits(export(checkpoint, max_length=LENGTH), tmp_path, [[1, 2, 3]])  # type: ignore[arg-type]
    table_alone = Precision(name="table", linear=(("*", FLOAT),), embedding="embedding_blocks8")
    done = quantize(export(checkpoint, max_length=LENGTH), table_alone)  # type: ignore[arg-type]
    found = float_logits(done.bundle, tmp_path, [[1, 2, 3]])
    assert np.abs(found - plain).max() < 0.02 * np.abs(plain).max()
    assert done.changes[0].error < 0.01


def test_fp8_blocks_of_the_checkpoint_keep_their_codes(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(300, 256)).astype(np.float32)
    codes, scale = to_fp8(weight, (128, 128))
    quantization = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": quantization}))
    (tmp_path / "tokenizer.json").write_text(byte_tokenizer())
    write_tensors(tmp_path / "model.safetensors", {"w": codes, "w_scale_inv": scale})
    tensor = open_checkpoint(str(tmp_path), cache=tmp_path / "cache").weights["w"]
    assert isinstance(tensor, Fp8Tensor)
    carried = Fp8().make(WeightSource("w", (tensor,)), {})
    assert np.array_equal(carried.codes.view(np.uint8), codes.view(np.uint8))
    assert np.array_equal(carried.scale, np.repeat(scale, 128, axis=0)[:300])


def test_fp8_codes_of_float_weights_are_the_nearest_and_never_overflow() -> None:
    random = np.random.default_rng(2)
    weight = (random.normal(size=(64, 384)) * np.exp(random.normal(size=(64, 1)) * 3)).astype(np.float32)
    made = Fp8().make(WeightSource("w", (FakeTensor(weight),)), {})
    values, scale = made.values(), made.scale
    assert np.isfinite(values).all() and np.array_equal(scale, scale.astype(np.float16).astype(np.float32))
    error = np.abs(values - weight)
    assert (error <= np.maximum(np.abs(weight) / 16, np.repeat(scale, 128, axis=1) * 2**-10) * 1.001).all()
    assert made.codes.dtype == ml_dtypes.float8_e4m3fn
