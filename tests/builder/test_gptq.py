"""GPTQ chooses the paper's codes, loses less than rounding, and reaches engines. Run: pytest tests/builder/test_gptq.py"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.block_tensors import in_blocks
from fakes.tensorrt_engines import LENGTH, tiny
from triune_builder.errors import BuildError
from triune_builder.graph.export import export
from triune_builder.plan import BuildPlan
from triune_builder.quantize import choosing
from triune_builder.quantize.choosing import choose_codes, open_parts
from triune_builder.quantize.gptq import DAMPING, NOTE, Inputs, choose_scales, gptq
from triune_builder.quantize.policy import GPTQ, NEAREST
from triune_builder.quantize.schemes.blocks import BLOCK, quantize_blocks
from triune_builder.quantize.statistics import Observe
from triune_builder.targets import calibration
from triune_builder.targets.calibration import forget, quantize_calibrated
from triune_builder.targets.cpu import lowering
from triune_builder.targets.cpu.precisions import find_precision
from triune_builder.targets.cuda.precisions import find_precision as find_cuda

INT4 = find_precision("int4")
TEXTS = {name: ["a few words to be observed on, and some more of them"] for name in ("calibration", "evaluation", "prompts")}


def uneven(seed: int, tokens: int, columns: int) -> np.ndarray:
    """Inputs that depend on each other, some channels larger than others."""
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(tokens, columns // 4)) @ random.normal(size=(columns // 4, columns))
    return (mixed + random.normal(size=(tokens, columns))) * np.exp(random.normal(size=columns))


def by_the_paper(weight: np.ndarray, hessian: np.ndarray, scale: np.ndarray, offset: np.ndarray, most: int) -> np.ndarray:
    """Algorithm 1 of the paper with its inverse of H, a column at a time, the heaviest first, in float64."""
    columns = len(hessian)
    order = np.argsort(-np.diagonal(hessian), kind="stable")
    damped = hessian + DAMPING * np.diagonal(hessian).mean() * np.eye(columns)
    upper = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
    left, codes = weight[:, order].astype(np.float64), np.empty(weight.shape, np.uint8)
    for i, column in enumerate(order):
        step, low = scale[:, column // BLOCK].astype(np.float64), offset[:, column // BLOCK].astype(np.float64)
        code = np.clip(np.rint((left[:, i] - low) / step), 0, most)
        error = (left[:, i] - (code * step + low)) / upper[i, i]
        left[:, i:] -= error[:, None] * upper[i, i:]
        codes[:, column] = code
    return codes


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 9), st.sampled_from([1, 5, 9]), st.booleans())
def test_codes_are_those_of_the_papers_algorithm(seed: int, rows: int, blocks: int, symmetric: bool) -> None:
    """Nine blocks are more columns than a batch has."""
    columns = blocks * BLOCK
    weight = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    x = uneven(seed, 2 * columns, columns)
    made = gptq(weight, Inputs.of_hessian(x.T @ x), 4, symmetric=symmetric)
    expected = by_the_paper(weight, x.T @ x, made.scale, made.offset, 15)
    assert np.mean(made.codes != expected) < 1e-3  # two floats that lie within their last bits of a tie


@given(st.integers(0, 1000), st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_product_loses_half_of_what_rounding_loses(seed: int, symmetric: bool) -> None:
    """On other inputs of the same kind."""
    weight = np.random.default_rng(seed).normal(size=(64, 128)).astype(np.float32)
    x = uneven(seed, 1024, 128)
    seen, other = x[:512], x[512:]
    made, plain = gptq(weight, Inputs.of(seen), 4, symmetric=symmetric), quantize_blocks(weight, 4, symmetric=symmetric)
    lost = [np.square(other @ (codes.values() - weight).T).sum() for codes in (made, plain)]
    assert lost[0] < 0.5 * lost[1]


def test_a_token_of_huge_inputs_counts_no_more_than_others() -> None:
    x = uneven(4, 100, 64)
    larger = x.copy()
    larger[0] *= 1e4
    one, other = Inputs.of(x), Inputs.of(larger)
    assert np.array_equal(one.order, other.order)
    np.testing.assert_allclose(one.rates, other.rates, rtol=0, atol=1e-9)


@pytest.mark.parametrize("symmetric", [True, False])
def test_scales_err_no_more_than_those_of_the_whole_range(symmetric: bool) -> None:
    weight = np.random.default_rng(3).standard_t(3, size=(32, 64)).astype(np.float32)
    scale, offset = choose_scales(weight, np.ones(64, np.float32), 4, symmetric=symmetric)
    split = weight.reshape(32, 2, BLOCK)
    near = np.clip(np.rint((split - offset[..., None]) / scale[..., None]), 0, 15) * scale[..., None] + offset[..., None]
    plain = quantize_blocks(weight, 4, symmetric=symmetric).values().reshape(split.shape)
    errors = [np.square(values - split).sum(axis=2) for values in (near, plain)]
    assert (errors[0] <= errors[1] * 1.001).all() and errors[0].sum() < 0.97 * errors[1].sum()


@pytest.mark.parametrize("symmetric", [True, False])
def test_zeros_and_inputs_of_zeros_are_rounded_as_they_are(symmetric: bool) -> None:
    weight = np.zeros((2, 64), np.float32)
    weight[1] = np.linspace(-1, 1, 64)
    made = gptq(weight, Inputs.of(np.zeros((5, 64))), 4, symmetric=symmetric)
    assert not made.values()[0].any() and np.abs(made.values()[1] - weight[1]).max() < 0.2


def chosen(folder: Path, precision: str = "int4", architecture: str = "llama", rounding: str = GPTQ) -> Any:
    checkpoint = dataclasses.replace(tiny(architecture), verification=TEXTS)
    bundle = export(checkpoint, max_length=LENGTH)  # type: ignore[arg-type]  # a fake
    rules = find_cuda(precision.removeprefix("cuda ")).weights if precision.startswith("cuda ") else find_precision(precision)
    return quantize_calibrated(bundle, checkpoint, rules, rounding, folder)  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", ["llama", "deepseek_v3"])
@pytest.mark.parametrize("precision", ["int4", "cuda int4"])
def test_every_weight_of_four_bits_has_codes_by_gptq(architecture: str, precision: str, tmp_path: Path) -> None:
    done = chosen(tmp_path, precision, architecture)
    if not precision.startswith("cuda"):
        done = dataclasses.replace(done, bundle=lowering.lower(done.bundle))
    for value in done.bundle.model.graph.initializers.values():
        if value.const_value is not None:
            value.const_value.numpy()  # as its bytes are written
    notes = {change.name: change.note for change in done.changes if change.scheme == "blocks4"}
    plain = {name: note for name, note in notes.items() if "experts" not in name.split(".")}
    assert plain and set(plain.values()) == {NOTE}  # an expert that no text chose is rounded to nearest
    forget(tmp_path)
    assert not list(tmp_path.iterdir())


def test_rounding_to_nearest_reads_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "observe_inputs", None)
    assert chosen(tmp_path, rounding=NEAREST).changes and not list(tmp_path.iterdir())


def test_an_interrupted_build_chooses_no_codes_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, made = choosing.gptq, []

    def failing(*args: Any, **options: Any) -> Any:
        made.append(1)
        if len(made) == 5:
            raise KeyboardInterrupt
        return plain(*args, **options)

    monkeypatch.setattr(choosing, "gptq", failing)
    with pytest.raises(KeyboardInterrupt):
        chosen(tmp_path)
    kept = {path: path.read_bytes() for path in (tmp_path / ".gptq").iterdir()}
    assert len(kept) == 4
    chosen(tmp_path)
    assert len(made) == 5 + len(list((tmp_path / ".gptq").iterdir())) - 4
    assert all(path.read_bytes() == content for path, content in kept.items())


def test_a_layer_reads_what_codes_before_it_compute(tmp_path: Path) -> None:
    checkpoint = tiny("llama")
    bundle = export(checkpoint, max_length=LENGTH)  # type: ignore[arg-type]
    parts = open_parts(bundle, INT4)

    def run(weights: Mapping[str, Any], observe: Observe) -> None:
        for name in parts:
            before = weights[name].float32()
            observe(name, uneven(1, 99, before.shape[1]))
            after = weights[name].float32()
            assert np.abs(after - before).max() > 0 and len(np.unique(after[0, :BLOCK])) <= 16

    choose_codes(bundle, parts, checkpoint.weights, tmp_path / "kept", run)
    assert len(parts) == 14  # of two layers: queries, keys, values, output, gate, up, down


def test_blocks_of_the_checkpoint_stay_as_they_are(tmp_path: Path) -> None:
    checkpoint = tiny("llama")
    blocked = {n: in_blocks(t.array) if n.endswith("_proj.weight") else t for n, t in checkpoint.weights.items()}
    bundle = export(dataclasses.replace(checkpoint, weights=blocked), max_length=LENGTH)  # type: ignore[arg-type]
    assert not open_parts(bundle, INT4)
    name = "model.layers.0.mlp.up_proj.weight"
    bundle = export(dataclasses.replace(checkpoint, weights=blocked | {name: checkpoint.weights[name]}), max_length=LENGTH)  # type: ignore[arg-type]
    assert list(open_parts(bundle, INT4)) == [name]


@pytest.mark.parametrize(("rounding", "said"), [(GPTQ, ["gptq chose nothing"]), (NEAREST, [])])
def test_a_build_says_that_there_was_nothing_to_choose(rounding: str, said: list[str], tmp_path: Path) -> None:
    checkpoint = tiny("llama")
    blocked = {n: in_blocks(t.array) if n.endswith("_proj.weight") else t for n, t in checkpoint.weights.items()}
    checkpoint = dataclasses.replace(checkpoint, weights=blocked, verification=TEXTS)
    bundle, lines = export(checkpoint, max_length=LENGTH), []  # type: ignore[arg-type]
    quantize_calibrated(bundle, checkpoint, INT4, rounding, tmp_path, say=lines.append)  # type: ignore[arg-type]
    assert [line.split(maxsplit=1)[1].partition(":")[0] for line in lines] == said and not list(tmp_path.iterdir())


def test_inputs_that_are_no_numbers_are_refused_by_name(tmp_path: Path) -> None:
    checkpoint = tiny("llama")
    bundle = export(checkpoint, max_length=LENGTH)  # type: ignore[arg-type]
    parts = open_parts(bundle, INT4)
    name = next(iter(parts))

    def run(weights: Mapping[str, Any], observe: Observe) -> None:
        observe(name, np.full((3, parts[name].part.shape[1]), np.inf))

    with pytest.raises(BuildError, match=f"no number, such as the input of {name}"):
        choose_codes(bundle, parts, checkpoint.weights, tmp_path / "kept", run)


@pytest.mark.parametrize(("target", "precision"), [("cpu", "w8a8"), ("cuda", "bf16"), ("tensorrt", "fp16")])
def test_gptq_without_four_bits_is_refused(target: str, precision: str) -> None:
    with pytest.raises(BuildError, match=f"precision {precision} has none") as refused:
        BuildPlan(target=target, precision=precision, rounding=GPTQ)
    assert "int4" in str(refused.value.hint)
    assert BuildPlan(target=target, precision="int4", rounding=GPTQ).rounding == GPTQ


def test_gptq_for_a_target_that_chooses_no_codes_is_refused() -> None:
    with pytest.raises(BuildError, match="target vllm has none") as refused:
        BuildPlan(target="vllm", rounding=GPTQ)
    assert refused.value.hint == "choose --rounding nearest (make: ROUNDING=nearest)"


def test_an_unknown_rounding_is_refused() -> None:
    with pytest.raises(BuildError, match="unknown rounding 'gtpq'; known: nearest, gptq") as refused:
        BuildPlan(precision="int4", rounding="gtpq")
    assert refused.value.hint == "did you mean gptq?"
