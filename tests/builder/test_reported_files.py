"""Files that people reported trouble with elsewhere, made by hand: read, or refused in a sentence with a remedy.

Each test names the report that it replays. Run: pytest tests/builder/test_reported_files.py
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType
from tokenizers import Tokenizer, models

from fakes.gguf_files import HEADS, KV_HEADS, WIDE, as_q4_k_m, interleave, llama_weights, wide_weights, write_gguf
from fakes.packed_weights import awq, compressed, dequantized, gptq
from fakes.safetensors_writer import write_tensors
from fakes.tiny_dense import dense_checkpoint
from fakes.tiny_folders import write_folder
from fakes.tiny_llama import FakeCheckpoint, FakeTensor
from support.damaged_files import opened, refused
from triune_builder.checkpoint import Tensor
from triune_builder.errors import BuildError
from triune_builder.graph.export import export
from triune_builder.graph.promises import check_weights

ROWS, COLUMNS, GROUP = 64, 96, 32
SIZES: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "num_hidden_layers": 1}
CODES = np.random.default_rng(0).integers(0, 16, (ROWS, COLUMNS))
SCALES = np.random.default_rng(1).uniform(0.01, 1, (ROWS, COLUMNS // GROUP)).astype(np.float16)
ZEROS = np.random.default_rng(2).integers(1, 16, SCALES.shape)
MIDDLE = np.full(SCALES.shape, 8)
IN_ORDER = np.arange(COLUMNS) // GROUP
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False}
W4A16 = {
    "format": "pack-quantized",
    "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP}}},
}


def write(folder: Path, tensors: dict[str, Any], *, config: dict[str, Any], beside: dict[str, Any] | None = None) -> Path:
    """A folder with one matrix, `a`.

    Args:
        config: of config.json.
        beside: further files with their JSON.
    """
    folder.mkdir()
    (folder / "tokenizer.json").write_text(Tokenizer(models.BPE()).to_str())
    for name, value in {"config.json": {"model_type": "llama"} | config, **(beside or {})}.items():
        (folder / name).write_text(json.dumps(value))
    write_tensors(folder / "model.safetensors", tensors)
    return folder


def matrix(folder: Path) -> Tensor:
    weights = opened(folder).weights
    assert weights.keys() == {"a.weight"}
    return weights["a.weight"]


def check(folder: Path, expected: np.ndarray, *, carried: bool = True) -> None:
    weight = matrix(folder)
    assert np.array_equal(weight.float32(), expected) and weight.has_blocks == carried


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("layout", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("written", ["gptq", "gptq_v2"])
def test_symmetric_zeros_of_the_other_layout_than_is_said(tmp_path: Path, layout: str, written: str, bits: int) -> None:
    """vLLM #38966: `gptq` in the config and zeros of gptq_v2, hence every weight off by a step."""
    codes, middle = CODES * (bits // 4), np.full_like(MIDDLE, 1 << (bits - 1))
    tensors = gptq("a", codes, SCALES, middle, IN_ORDER, bits, second=written == "gptq_v2")
    said = GPTQ | {"bits": bits, "sym": True, "checkpoint_format": layout}
    check(write(tmp_path / "m", tensors, config={"quantization_config": said}), dequantized(codes, SCALES, middle, IN_ORDER))


def test_zeros_that_are_not_symmetric_are_taken_as_they_are_whatever_is_said(tmp_path: Path) -> None:
    """vLLM #26343: a checkpoint of gptq_v2 is read with the zeros it has, not one above."""
    tensors = gptq("a", CODES, SCALES, ZEROS, IN_ORDER, 4, second=True)
    said = GPTQ | {"sym": True, "checkpoint_format": "gptq_v2"}
    check(write(tmp_path / "m", tensors, config={"quantization_config": said}), dequantized(CODES, SCALES, ZEROS, IN_ORDER))


def test_a_group_index_of_nothing_but_zeros_orders_nothing(tmp_path: Path) -> None:
    """exllama #44: `desc_act`, and a g_idx that was never filled in."""
    tensors = gptq("a", CODES, SCALES, ZEROS, np.zeros(COLUMNS, np.int64), 4)
    said = GPTQ | {"desc_act": True}
    check(write(tmp_path / "m", tensors, config={"quantization_config": said}), dequantized(CODES, SCALES, ZEROS, IN_ORDER))


def test_a_group_index_of_nothing_but_minus_one_orders_nothing(tmp_path: Path) -> None:
    """compressed-tensors #143 and #645: weight_g_idx with its first value is written to disk."""
    tensors = compressed("a", CODES - 8, SCALES, ZEROS - 8, np.full(COLUMNS, -1), 4)
    said = W4A16 | {"quant_method": "compressed-tensors"}
    check(write(tmp_path / "m", tensors, config={"quantization_config": said}), dequantized(CODES, SCALES, ZEROS, IN_ORDER))


def test_columns_that_the_group_size_does_not_divide(tmp_path: Path) -> None:
    """auto-round #388: the last group is short."""
    scales, zeros, group_of = SCALES[:, :2], ZEROS[:, :2], np.arange(COLUMNS) // 64
    tensors = gptq("a", CODES, scales, zeros, group_of, 4)
    said = GPTQ | {"group_size": 64}
    check(write(tmp_path / "m", tensors, config={"quantization_config": said}), dequantized(CODES, scales, zeros, group_of))


def test_one_group_a_row(tmp_path: Path) -> None:
    """AutoAWQ #578: group_size -1."""
    scales, zeros, group_of = SCALES[:, :1], ZEROS[:, :1], np.zeros(COLUMNS, np.int64)
    said = {"quant_method": "awq", "bits": 4, "group_size": -1, "version": "gemm", "zero_point": True}
    folder = write(tmp_path / "m", awq("a", CODES, scales, zeros), config={"quantization_config": said})
    check(folder, dequantized(CODES, scales, zeros, group_of))


def test_a_packing_for_another_kernel_is_refused_with_a_remedy(tmp_path: Path) -> None:
    """AutoAWQ #217: GEMV packs otherwise, and differs from GEMM by its shapes alone."""
    said = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "GEMV", "zero_point": True}
    folder = write(tmp_path / "m", awq("a", CODES, SCALES, ZEROS), config={"quantization_config": said})
    assert "version = 'GEMV' (only 'gemm' is read)" in refused(folder)


@pytest.mark.parametrize("name", ["quantize_config.json", "quant_config.json"])
def test_a_config_that_lies_beside_config_json(tmp_path: Path, name: str) -> None:
    """GPTQModel #1080 and vLLM #1419: what was quantized before config.json said so has a file of its own."""
    if name == "quant_config.json":
        said = {"zero_point": True, "q_group_size": GROUP, "w_bit": 4, "version": "GEMM"}
        tensors = awq("a", CODES, SCALES, ZEROS)
    else:
        said = {"bits": 4, "group_size": GROUP, "desc_act": False, "sym": False, "true_sequential": True}
        tensors = gptq("a", CODES, SCALES, ZEROS, IN_ORDER, 4)
    folder = write(tmp_path / "m", tensors, config={}, beside={name: said})
    check(folder, dequantized(CODES, SCALES, ZEROS, IN_ORDER))
    assert folder / name in opened(folder).files


def test_packed_weights_of_which_nobody_says_anything_are_refused(tmp_path: Path) -> None:
    """textgen #1668: a repository without any such file."""
    folder = write(tmp_path / "m", gptq("a", CODES, SCALES, ZEROS, IN_ORDER, 4), config={})
    assert "config.json has no quantization_config that would say what these are" in refused(folder)


def test_the_key_that_sparseml_wrote(tmp_path: Path) -> None:
    """sparseml #2314: `compression_config` became `quantization_config`."""
    tensors = compressed("a", CODES - 8, SCALES, ZEROS - 8, None, 4)
    folder = write(tmp_path / "m", tensors, config={"compression_config": W4A16})
    check(folder, dequantized(CODES, SCALES, ZEROS, IN_ORDER))
    assert "compression_config" not in opened(folder).config


def with_biases(values: np.ndarray) -> FakeCheckpoint:
    checkpoint = dense_checkpoint("llama", **SIZES)
    names = ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj")
    more = {}
    for name in names:
        rows = checkpoint.weights[f"model.layers.0.{name}.weight"].shape[0]
        more[f"model.layers.0.{name}.bias"] = FakeTensor(np.resize(values, rows).astype(np.float32))
    return dataclasses.replace(checkpoint, weights=checkpoint.weights | more)


def test_biases_of_zeros_in_a_model_without_biases(tmp_path: Path) -> None:
    """FastChat #3520 and textgen #676: "Unexpected key(s) in state_dict: model.layers.0.self_attn.k_proj.bias"."""
    checkpoint = opened(write_folder(tmp_path / "m", with_biases(np.zeros(1)), "GPTQ"))
    check_weights(checkpoint.config, checkpoint.weights)
    assert not [name for name in export(checkpoint, max_length=16).sources if name.endswith(".bias")]


def test_biases_that_say_something_are_not_dropped(tmp_path: Path) -> None:
    """vLLM drops every bias that a GPTQ checkpoint has and its architecture has not."""
    checkpoint = opened(write_folder(tmp_path / "m", with_biases(np.eye(1, 64, 5)), "GPTQ"))
    with pytest.raises(BuildError, match=r"3 spare: .*; attention_bias is False in config\.json"):
        check_weights(checkpoint.config, checkpoint.weights)


@pytest.mark.parametrize("form", ["GPTQ", "AWQ", "W4A16", "NF4"])
def test_parts_of_a_matrix_in_different_shards(tmp_path: Path, form: str) -> None:
    """transformers #40327: codes in one shard, scales and states in another."""
    checkpoint = dense_checkpoint("qwen2", **SIZES)
    whole = opened(write_folder(tmp_path / "whole", checkpoint, form)).weights
    parts = opened(write_folder(tmp_path / "parts", checkpoint, form, shards=13)).weights
    assert parts.keys() == whole.keys()
    assert any(tensor.path != part.path for tensor in parts.values() for part in tensor.beside)
    assert all(np.array_equal(parts[name].float32(), tensor.float32()) for name, tensor in whole.items())


@pytest.mark.parametrize("kind", [31, 32, 33])
def test_a_type_that_llama_cpp_no_longer_reads_is_refused_by_name(tmp_path: Path, kind: int) -> None:
    """llama.cpp #10757: "TYPE_Q4_0_4_4 REMOVED, use Q4_0 with runtime repacking"."""
    path = write_gguf(tmp_path / "m.gguf", llama_weights(), dtype="Q4_0")
    content = path.read_bytes()
    name = b"blk.0.attn_k.weight"
    at = content.index(name) + len(name) + 4 + 2 * 8  # behind its two sizes
    path.write_bytes(content[:at] + kind.to_bytes(4, "little") + content[at + 4 :])
    said = refused(path)
    assert f"Q4_0_{ {31: '4_4', 32: '4_8', 33: '8_8'}[kind] } (number {kind})" in said and "such as its Q4_K_M" in said


def split(folder: Path) -> list[Path]:
    folder.mkdir()
    write_gguf(folder / "m.gguf", llama_weights(), dtype="Q8_0", split=8)
    return sorted(folder.iterdir())


def test_parts_joined_with_cat(tmp_path: Path) -> None:
    """llama.cpp #9613: "invalid split file: llama.gguf"."""
    joined = tmp_path / "llama.gguf"
    joined.write_bytes(b"".join(path.read_bytes() for path in split(tmp_path / "parts")))
    said = refused(joined)
    assert "is part 1 of 3, and its name does not end in -0000N-of-00003.gguf" in said and "not with `cat`" in said


def test_a_part_that_a_wrong_merge_emptied(tmp_path: Path) -> None:
    """llama.cpp #9498: `--merge part1 part2 whole` overwrites the second part."""
    parts = split(tmp_path / "parts")
    parts[1].write_bytes(b"")
    assert "m-00002-of-00003.gguf is not a readable GGUF file" in refused(parts[0])


def test_a_piece_of_a_file_that_was_cut_for_upload(tmp_path: Path) -> None:
    """textgen #6187: `X.gguf.part1of2`, which only `cat` puts together."""
    content = write_gguf(tmp_path / "m.gguf", llama_weights(), dtype="Q8_0").read_bytes()
    first, second = tmp_path / "x.gguf.part1of2", tmp_path / "x.gguf.part2of2"
    half = len(content) * 3 // 4
    first.write_bytes(content[:half])
    second.write_bytes(content[half:])
    said = refused(first)
    assert "x.gguf.part1of2 is cut short" in said and "put together with `cat`" in said
    assert "is a file that does not end in .gguf" in refused(second)
    joined = tmp_path / "x.gguf"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    assert opened(joined).weights


def test_a_file_of_ollama_which_has_no_suffix(tmp_path: Path) -> None:
    """airllm #304: the models of Ollama lie in `blobs/sha256-...`."""
    path = write_gguf(tmp_path / "m.gguf", llama_weights(), dtype="Q8_0")
    blob = shutil.copy(path, tmp_path / ("sha256-" + "7da520c5" * 8))
    assert opened(blob).weights.keys() == opened(path).weights.keys()


@pytest.mark.parametrize("pre", ["default", None])
def test_a_file_that_does_not_say_how_text_is_cut_is_refused(tmp_path: Path, pre: str | None) -> None:
    """ollama #17698: llama.cpp takes `default` for GPT-2's way, which gives other tokens than the model was trained with."""
    path = write_gguf(tmp_path / "m.gguf", llama_weights(), tokenizer={"pre": pre})
    assert "pre-tokenizer 'default' is not known, and guessing how it cuts text would give wrong tokens" in refused(path)


def test_queries_and_keys_of_a_mixed_file_are_put_back_in_order(tmp_path: Path) -> None:
    """transformers #31766: keys have fewer heads than queries; and each layer's matrices may be of other types."""
    path = write_gguf(tmp_path / "m.gguf", wide_weights(), metadata=WIDE, quantize=as_q4_k_m)
    stored = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}
    kinds = {t.name: GGMLQuantizationType(t.tensor_type).name for t in gguf.GGUFReader(path).tensors}
    assert {kinds[f"blk.0.attn_{part}.weight"] for part in "qkv"} == {"Q4_K", "Q6_K"}
    assert kinds["blk.0.ffn_down.weight"] != kinds["blk.1.ffn_down.weight"]
    weights = opened(path).weights
    for part, heads in (("q", HEADS), ("k", KV_HEADS)):
        ours = weights[f"model.layers.0.self_attn.{part}_proj.weight"].float32()
        assert np.array_equal(interleave(ours, heads), stored[f"blk.0.attn_{part}.weight"])
