"""Engines of checkpoints that are quantized already: float32 computes what the dequantized weights do, and int4 carries them.

Run: pytest tests/builder/test_quantized_checkpoints.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from fakes.engines import made_up_maxima
from fakes.gguf_files import WIDE, as_q4_k_m, wide_weights, write_gguf
from fakes.tiny_dense import dense_checkpoint
from fakes.tiny_folders import rounded, write_folder
from fakes.tiny_llama import FakeCheckpoint
from triune_builder.checkpoint import Checkpoint, open_checkpoint
from triune_builder.graph.export import export
from triune_builder.quantize.apply import Quantized, quantize
from triune_builder.targets import onnx_files
from triune_builder.targets.cpu.lowering import lower
from triune_builder.targets.cpu.precisions import find_precision
from triune_runtime.manifest import EngineManifest, Limits
from triune_runtime.runner import Work
from triune_runtime.targets import make_runner

PROMPT = tuple(int(t) for t in np.random.default_rng(3).integers(0, 256, 12))
FOLDERS = ("GPTQ", "AWQ", "W4A16", "NF4")
CARRIED = "checkpoint blocks carried exactly"


def opened(root: Path, form: str) -> Checkpoint:
    if form == "Q4_K_M":
        path = write_gguf(root / "m.gguf", wide_weights(), metadata=WIDE, quantize=as_q4_k_m)
    else:
        sizes: dict[str, Any] = {"head_dim": 16, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1}
        path = write_folder(root / "m", dense_checkpoint("qwen2", **sizes), form)
    return open_checkpoint(str(path), cache=root)


def dequantized(checkpoint: Checkpoint) -> FakeCheckpoint:
    """The same model, with the numbers that its tensors stand for in memory."""
    fake = FakeCheckpoint(config=dict(checkpoint.config), weights={}, tokenizer_json=checkpoint.tokenizer_json)
    return rounded(fake, {name: tensor.float32() for name, tensor in checkpoint.weights.items()})


def quantized(checkpoint: Any, precision: str) -> Quantized:
    return quantize(export(checkpoint, max_length=32), find_precision(precision), made_up_maxima(checkpoint))


def answer(checkpoint: Any, precision: str, folder: Path) -> tuple[np.ndarray, list[int]]:
    """Logits behind the prompt, and eight greedy tokens."""
    folder.mkdir()
    bundle = lower(quantized(checkpoint, precision).bundle)
    onnx_files.write(bundle, folder)
    manifest = EngineManifest(
        model="tiny", architecture=bundle.architecture, target="cpu", precision=precision, engine=onnx_files.MODEL,
        vocab_size=bundle.vocab_size, cache=bundle.cache, stop_token_ids=(0,),
        limits=Limits(max_sequences=1, max_length=32),
    )  # fmt: skip
    runner = make_runner(manifest, folder)
    logits = first = runner.run([Work(0, 0, PROMPT)])[-1]
    tokens = []
    for at in range(len(PROMPT), len(PROMPT) + 8):
        tokens.append(int(np.argmax(logits)))
        logits = runner.run([Work(0, at, (tokens[-1],))])[-1]
    return np.array(first), tokens


@pytest.mark.parametrize("form", ["Q4_K_M", *FOLDERS])
def test_the_engine_answers_as_the_dequantized_weights_do(tmp_path: Path, form: str) -> None:
    checkpoint = opened(tmp_path, form)
    got, tokens = answer(checkpoint, "fp32", tmp_path / "engine")
    wanted, expected = answer(dequantized(checkpoint), "fp32", tmp_path / "plain")
    assert np.abs(got - wanted).max() <= 1e-6 * np.abs(wanted).max() and tokens == expected


@pytest.mark.parametrize("form", ["Q4_K_M", "GPTQ", "AWQ", "W4A16"])
def test_four_bit_matrices_lose_nothing_in_int4(tmp_path: Path, form: str) -> None:
    made = quantized(opened(tmp_path, form), "int4")
    (tmp_path / "engine").mkdir()
    onnx_files.write(made.bundle, tmp_path / "engine")
    layers = {c.name: c for c in made.changes if c.name.startswith("model.layers.")}
    carried = [name for name, change in layers.items() if change.note == CARRIED]
    if form == "Q4_K_M":  # values, and half of the down projections, have six bits
        mixed = layers["model.layers.0.self_attn.qkv_proj.weight"]
        assert mixed.note == f"{CARRIED}; the rest rounded to nearest" and 0.01 < mixed.error < 0.08
        assert layers["model.layers.0.mlp.down_proj.weight"].note == "" and len(carried) == len(layers) - 3
    else:
        assert len(carried) == len(layers)
    assert all(layers[name].error < 1e-6 for name in carried)


def test_the_gguf_packages_reader_agrees_about_the_written_file(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "Q4_K_M")
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert kinds["blk.0.attn_q.weight"] == "Q4_K" and kinds["blk.0.attn_v.weight"] == "Q6_K"
    theirs = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    for ours, name in (("self_attn.v_proj", "attn_v"), ("mlp.up_proj", "ffn_up"), ("mlp.down_proj", "ffn_down")):
        assert np.array_equal(checkpoint.weights[f"model.layers.1.{ours}.weight"].float32(), theirs[f"blk.1.{name}.weight"])
