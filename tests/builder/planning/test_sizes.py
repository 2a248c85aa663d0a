"""Bytes as published, and of every rank. Run: pytest tests/builder/planning/test_sizes.py"""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from fakes.planned import geometry, planned, rows
from fakes.published import CONFIGS, Published
from triune_builder.errors import BuildError
from triune_builder.planning.formats import block_bytes, stored_bytes
from triune_builder.planning.geometry import geometry_of
from triune_builder.planning.splits import Split, misfit, rank_shape, stages
from triune_builder.targets.cuda.precisions import find_precision
from triune_builder.targets.sizes import Weight

PUBLISHED = sorted(path.stem for path in CONFIGS.glob("*.json"))
_BYTES = {"F8_E4M3": 1, "BF16": 2, "F32": 4}
R1_FILES = 688_586_727_753  # the bytes of DeepSeek-V3's 163 files, headers included; R1's are as many
SMALLEST_FILE = 1_503_300_328  # of Qwen3-0.6B, its only one


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["model"])
def test_tensors_take_the_bytes_that_the_index_says(row: dict[str, Any]) -> None:
    assert stored_bytes(geometry_of(row["config"]), "bf16") == row["total_size"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_tensors_take_the_bytes_of_the_published_types(name: str) -> None:
    model = geometry(name)
    expected = sum(_BYTES[dtype] * count for dtype, count in Published.read(name).parameters.items())
    assert stored_bytes(model, "fp8" if model.fp8 else "bf16") == expected


def test_r1s_files_are_its_tensors_and_their_headers() -> None:
    tensors = stored_bytes(geometry("deepseek-r1"), "fp8")
    assert 0 < R1_FILES - tensors < 46_183 * 2 * 160  # a header's entry of each weight and scale


def test_the_smallest_qwen3s_file_has_its_table_twice() -> None:
    model = geometry("Qwen/Qwen3-0.6B")
    assert model.tied and model.head is None
    header = SMALLEST_FILE - stored_bytes(model, "bf16") - block_bytes(model.table, "bf16")
    assert 0 < header < 311 * 160  # an entry of each tensor


@pytest.mark.parametrize("precision", ["bf16", "int4"])
def test_one_gpu_holds_what_a_dry_run_says(precision: str) -> None:
    model = geometry("r1-distill-qwen-1.5b")
    weights = [
        Weight(name=b.name, kind=b.kind, shape=b.shape, dtype="BF16", nbytes=2 * math.prod(b.shape))
        for b in model.blocks for _ in range(b.count)
    ]  # fmt: skip
    expected = find_precision(precision).size(weights, tied=False, slots=0).loaded
    assert planned("r1-distill-qwen-1.5b", precision=precision).ranks[0].weights == expected


@pytest.mark.parametrize("tensor", [1, 2, 4, 8])
@pytest.mark.parametrize("pipeline", [1, 2, 3])
def test_ranks_hold_every_weight_once_but_for_what_is_not_split(tensor: int, pipeline: int) -> None:
    model, split = geometry("deepseek-r1"), Split(tensor=tensor, pipeline=pipeline)
    plan = planned("deepseek-r1", precision="fp16", tensor=tensor, pipeline=pipeline)
    copied = sum(
        block.count * block_bytes(block, "fp16") for layer in model.layers for block in layer if block.split == "whole"
    ) + sum(block_bytes(block, "fp16") for block in model.last)
    whole = sum(block.count * block_bytes(block, "fp16") for block in model.blocks)
    assert plan.weights == whole + (tensor - 1) * copied
    assert sum(len(cut) for cut in stages(61, pipeline)) == 61 and split.gpus == tensor * pipeline


def test_whole_experts_are_handed_out_and_the_rest_is_copied() -> None:
    one, many = planned("deepseek-r1", precision="fp8"), planned("deepseek-r1", precision="fp8", data=8, expert=True)
    assert many.ranks[0].experts * 8 == one.ranks[0].experts
    assert many.ranks[0].weights - many.ranks[0].experts == one.ranks[0].weights - one.ranks[0].experts


def test_table_and_head_are_on_the_outer_stages_and_the_last_has_fewer_layers() -> None:
    plan = planned("deepseek-r1", precision="fp8", pipeline=2)
    first, last = ([block.name for block, _, _ in rank.blocks] for rank in plan.ranks)
    assert "model.embed_tokens.weight" in first and "model.embed_tokens.weight" not in last
    assert "lm_head.weight" in last and "lm_head.weight" not in first
    assert [len(rank.layers) for rank in plan.ranks] == [31, 30]
    assert [len(cut) for cut in stages(61, 4)] == [15, 15, 16, 15]
    tied = planned("Qwen/Qwen3-4B", pipeline=2)
    assert "model.embed_tokens.weight" in [block.name for block, _, _ in tied.ranks[1].blocks]


def test_layers_that_predict_further_tokens_count_only_where_they_are_loaded() -> None:
    without, with_them = planned("deepseek-r1", precision="fp8"), planned("deepseek-r1", precision="fp8", mtp=True)
    assert with_them.weights - without.weights > 11.5e9
    assert with_them.ranks[0].kv_per_token == 62 * 576 * 2 and without.ranks[0].kv_per_token == 61 * 576 * 2


def test_key_value_heads_are_copied_where_ranks_are_more() -> None:
    model = geometry("r1-distill-qwen-1.5b")  # 2 of them
    keys = next(block for block in model.layers[0] if block.name.endswith("k_proj.weight"))
    assert [rank_shape(keys, model, Split(tensor=n))[0][0] for n in (1, 2, 4)] == [256, 128, 128]
    tokens = [planned("r1-distill-qwen-1.5b", tensor=n).ranks[0].kv_per_token for n in (1, 2, 4)]
    assert tokens == [28_672, 14_336, 14_336]


def test_a_latent_is_whole_on_each_tensor_rank_and_divided_by_stages() -> None:
    assert [planned("deepseek-r1", tensor=n).ranks[0].kv_per_token for n in (1, 8)] == [61 * 576 * 2] * 2
    assert planned("deepseek-r1", pipeline=2).ranks[1].kv_per_token == 30 * 576 * 2


def test_eight_bits_of_keys_and_values_take_half() -> None:
    assert planned("deepseek-r1", kv_dtype="fp8").ranks[0].kv_per_token == 61 * 576


def test_a_window_holds_no_more_than_its_positions() -> None:
    config = next(row["config"] for row in rows() if "Mistral" in row["model"]) | {"sliding_window": 4096}
    model = geometry_of(config)
    plan = planned("r1-distill-llama-8b")
    windowed = type(plan)(geometry=model, gpu=plan.gpu, split=plan.split, precision="bf16", kv_dtype="bf16")
    assert windowed.kv_bytes(4096) == windowed.kv_bytes(32_768) > windowed.kv_bytes(2048)


@pytest.mark.parametrize(
    ("name", "split", "nodes", "said", "remedy"),
    [
        ("r1-distill-qwen-14b", Split(tensor=16), 1, "--tensor-parallel is 16, .* 40 attention heads", "TENSOR_PARALLEL=8"),
        ("HuggingFaceTB/SmolLM2-135M", Split(tensor=2), 1, "does not divide .* 9 attention heads", "TENSOR_PARALLEL=1"),
        ("r1-distill-qwen-7b", Split(tensor=7), 1, "7, which does not divide .* 18,944 numbers of a feed", "TENSOR_PARALLEL=4"),
        ("r1-distill-qwen-7b", Split(pipeline=64), 1, "--pipeline-parallel is 64, .* 28 layers", "PIPELINE_PARALLEL=28"),
        ("r1-distill-qwen-7b", Split(data=2, expert=True), 1, "no experts", "leave it out"),
        ("deepseek-r1", Split(tensor=8, data=64, expert=True), 1, "256 experts out to 512 devices", "fewer devices"),
        ("deepseek-r1", Split(tensor=8, data=2), 2, "--data-parallel is 2, .* machines, of which there are 2", "by itself"),
        ("deepseek-r1", Split(pipeline=3), 2, "3 devices .* by 2 machines", "PIPELINE_PARALLEL=2"),
    ],
)
def test_a_split_that_cannot_be_is_told(name: str, split: Split, nodes: int, said: str, remedy: str) -> None:
    found = misfit(geometry(name), split, nodes)
    assert found and re.search(said, found.why) and remedy in found.remedy


def test_key_and_value_heads_are_shared_or_copied_evenly() -> None:
    model = geometry_of(Published.read("r1-distill-qwen-1.5b").config | {"intermediate_size": 9216})  # 12 heads, 2 of these
    found = misfit(model, Split(tensor=3))
    assert found and "neither divides the model's 2 key and value heads nor is a multiple" in found.why
    assert "TENSOR_PARALLEL=2" in found.remedy and misfit(model, Split(tensor=4)) is None


def test_an_architecture_that_is_not_known_is_named() -> None:
    with pytest.raises(BuildError, match=r"gpt_oss.*qwen3_moe"):
        geometry_of({"model_type": "gpt_oss"})


def test_a_mixtures_dense_layers_stay_dense() -> None:
    config = next(row["config"] for row in rows() if "30B" in row["model"])
    one = geometry_of(config | {"mlp_only_layers": [0]})
    assert not any(block.split == "expert" for block in one.layers[0])
    assert any(block.split == "expert" for block in one.layers[1])
