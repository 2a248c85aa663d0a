"""Engines for vLLM: what is checked, what is laid out and what is not copied. Run: pytest tests/builder/test_vllm_build.py"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from fakes.planned import planned
from fakes.published import Published
from fakes.tiny_folders import write_folder
from fakes.tiny_llama import tiny_checkpoint
from support.model_steps import by_reference
from triune_builder.checkpoint import open_checkpoint
from triune_builder.errors import BuildError
from triune_builder.inputs import Settings
from triune_builder.pipeline import build
from triune_builder.plan import plan_of
from triune_builder.planning.asking import Asked, report_of
from triune_builder.repository.assemble import ENGINE_FOLDER
from triune_builder.targets.vllm import asked as asked_of_machine
from triune_builder.targets.vllm.converting import write_weights
from triune_builder.targets.vllm.planned import choose
from triune_builder.targets.vllm.widening import can_widen
from triune_builder.verify.report import BuildReport
from triune_runtime.machine import Machine
from triune_runtime.manifest import EngineManifest
from triune_runtime.targets.vllm.plan import VllmPlan

NANO = str(Path(__file__).parents[2] / "models/r1-nano/checkpoint")


def made(work: Path, model: str, **asked: Any) -> tuple[EngineManifest, Path]:
    plan = plan_of({"model": model, "target": "vllm", "max_length": 16, "max_sequences": 3, **asked})
    folder = build(plan, Settings(build_dir=work / "build")).repository / ENGINE_FOLDER
    return EngineManifest.load(folder), folder


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked_of_machine, "this_machine", lambda: Machine(gpus=()))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "tiny", tiny_checkpoint(), "F32")


def test_a_safetensors_checkpoint_is_named_and_not_copied(tmp_path: Path, tiny: Path) -> None:
    manifest, folder = made(tmp_path, str(tiny), precision="fp32")
    plan = VllmPlan.of(manifest)
    assert plan.folder(folder) == tiny and plan.dtype == "float32" and plan.quantization is None
    assert not list(folder.glob("*.safetensors")) and (folder / "tokenizer.json").is_file()
    assert manifest.verified == "none" and manifest.limits.max_sequences == 3
    assert "a build does not run vLLM" in BuildReport.read(folder).summary


def test_what_is_asked_for_stands_in_the_manifest(tmp_path: Path, tiny: Path) -> None:
    asked = {"tensor_parallel": 2, "pipeline_parallel": 2, "data_parallel": 3, "micro_batch_size": 5}
    manifest, _ = made(tmp_path, str(tiny), precision="bf16-fp8kv", **asked)
    plan = VllmPlan.of(manifest)
    assert (plan.tensor_parallel, plan.pipeline_parallel, plan.data_parallel, plan.devices) == (2, 2, 3, 12)
    assert plan.kv_dtype == "fp8" and manifest.limits.max_sequences == 5
    assert {tensor.dtype for tensor in manifest.cache} == {"float8_e4m3fn"}


def test_what_the_planner_chooses_for_named_gpus_stands_in_the_manifest(tmp_path: Path, tiny: Path) -> None:
    first, _ = made(tmp_path, str(tiny), gpu="h200", gpus=2)
    chosen = VllmPlan.of(first)
    report = report_of(Asked(model=str(tiny), gpus=2, sequences=3, prompt=8, output=8), tmp_path)
    assert (chosen.tensor_parallel, chosen.pipeline_parallel, chosen.data_parallel) == report.best.split.degrees
    assert chosen.devices == 2 and chosen.kv_bytes and not chosen.expert_parallel
    again, _ = made(tmp_path, str(tiny), gpu="h200", gpus=1)
    assert VllmPlan.of(again).devices == 1, "other GPUs are another engine"


def test_other_weights_are_written_as_our_own_readers_read_them(tmp_path: Path, tiny: Path) -> None:
    checkpoint = open_checkpoint(str(tiny), cache=tmp_path)
    write_weights(tmp_path / "model.safetensors", checkpoint.weights, "bfloat16")
    (tmp_path / "config.json").write_text(json.dumps(checkpoint.config))
    (tmp_path / "tokenizer.json").write_text(checkpoint.tokenizer_json)
    again = open_checkpoint(str(tmp_path), cache=tmp_path)
    assert again.weights.keys() == checkpoint.weights.keys()
    for name, tensor in again.weights.items():
        assert tensor.dtype == "BF16"
        np.testing.assert_allclose(tensor.float32(), checkpoint.weights[name].float32(), rtol=1 / 128)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"tensor_parallel": 3}, r"--tensor-parallel is 3, which does not divide the model's \d+ attention heads"),
        ({"pipeline_parallel": 99}, r"--pipeline-parallel is 99, and the model has \d+ layers"),
        ({"tensor_parallel": 0}, r"--tensor-parallel is 0; it can be 1 to"),
        ({"expert_parallel": True}, "the model has no experts"),
        ({"nodes": 2}, "1 devices .* are not shared evenly by 2 machines"),
        (
            {"nodes": 2, "tensor_parallel": 2, "data_parallel": 2},
            "--data-parallel is 2, and copies of a model are not",
        ),
        ({"gpus": 2}, "--gpus is 2, and it is not known which GPUs they are"),
        ({"gpus": 0}, "--gpus is 0; it can be 1 to"),
        ({"gpu": "h201"}, "unknown GPU 'h201'"),
        ({"gpus": 4, "tensor_parallel": 2}, "tensor 2 x pipeline 1 x data 1 are 2 GPUs, not 4"),
        ({"gpu": "h200", "gpus": 4, "tensor_parallel": 3}, "--gpus 4 cannot be split as tensor 3"),
        ({"precision": "w8a8"}, "target vllm has no precision 'w8a8'"),
        ({"verify": "full"}, "verify"),
        ({"target": "cpu", "tensor_parallel": 2}, "of target vllm, not of cpu"),
    ],
)
def test_what_vllm_cannot_run_is_said_before_anything_is_made(
    tmp_path: Path, tiny: Path, asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(BuildError, match=said):
        made(tmp_path, **({"model": str(tiny)} | asked))
    assert not list(tmp_path.glob("build/*/vllm/repository"))


def test_weights_in_eight_bits_stay_so(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny8", tiny_checkpoint(), "F8_E4M3")
    with pytest.raises(BuildError, match="weights are FP8"):
        made(tmp_path, str(folder))
    manifest, _ = made(tmp_path, str(folder), precision="fp8")
    assert VllmPlan.of(manifest).quantization is None


def kv_bytes(config: dict[str, Any], **options: Any) -> int:
    plan = plan_of({"target": "vllm", "max_sequences": 4, "max_length": 256, **options})
    return choose(plan, config, ()).kv_bytes


def test_kv_memory_is_that_of_a_devices_share() -> None:
    heads = tiny_checkpoint().config | {
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 8,
    }
    latent = json.loads((Path(NANO) / "config.json").read_text("utf-8")) | {"kv_lora_rank": 512, "qk_rope_head_dim": 64}
    tokens = 128 * (4 * 2 + 2)
    assert kv_bytes(heads) == tokens * 6 * 2 * 4 * 8 * 2
    assert kv_bytes(heads, tensor_parallel=2, pipeline_parallel=3) == tokens * 2 * 2 * 2 * 8 * 2
    assert kv_bytes(heads, tensor_parallel=8) == tokens * 6 * 2 * 1 * 8 * 2, "a head is the least"
    assert kv_bytes(heads, data_parallel=2) == 128 * (2 * 2 + 2) * 6 * 2 * 4 * 8 * 2, "each copy has half of the sequences"
    assert kv_bytes(latent, tensor_parallel=2) == kv_bytes(latent), "each device has a latent whole"
    assert [kv_bytes(heads, precision=name) // kv_bytes(heads) for name in ("fp32", "bf16")] == [2, 1]
    assert kv_bytes(heads) == 2 * kv_bytes(heads, precision="bf16-fp8kv")
    windowed = heads | {"model_type": "mistral", "sliding_window": 16}
    assert kv_bytes(windowed) == kv_bytes(heads), "windows are kept whole"


def test_kv_memory_is_no_more_than_a_gpu_that_is_known_has_room_for() -> None:
    config = Published.read("r1-distill-qwen-7b").config
    many = {"max_sequences": 256, "max_length": 32_768, "gpu": "l40s"}
    plan = planned("r1-distill-qwen-7b", "l40s")
    assert kv_bytes(config, **many) == plan.ranks[0].room < kv_bytes(config, **many | {"gpu": "b200", "gpus": 8})
    with pytest.raises(BuildError, match=r"2 x l4 cannot hold it; .* are left for KV; one sequence of 131,072 takes 7.0 GiB"):
        kv_bytes(config, gpu="l4", data_parallel=2, max_length=131_072)


def copied_nano(folder: Path, **changes: Any) -> Path:
    shutil.copytree(NANO, folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | changes), "utf-8")
    return folder


def test_latent_attention_gets_sizes_that_vllm_has_kernels_for_and_computes_the_same(tmp_path: Path) -> None:
    manifest, folder = made(tmp_path, NANO)
    assert [(tensor.heads, tensor.dim) for tensor in manifest.cache] == [(1, 576)] * 7
    assert VllmPlan.of(manifest).folder(folder) == folder
    ours = open_checkpoint(NANO, cache=tmp_path)
    shutil.copy(Path(NANO) / "tokenizer.json", folder)
    theirs = open_checkpoint(str(folder), cache=tmp_path)
    text = "<｜begin▁of▁sentence｜><｜User｜>What is 12 + 30?<｜Assistant｜><think>\n"  # of noise, experts are near ties
    tokens = tuple(Tokenizer.from_str(ours.tokenizer_json).encode(text, add_special_tokens=False).ids)
    one, other = by_reference(ours)(tokens, len(tokens)), by_reference(theirs)(tokens, len(tokens))
    assert np.abs(other - one).max() / np.abs(one).max() < 1e-5
    assert {tensor.dtype for tensor in theirs.weights.values()} == {"BF16"}, "bfloat16 holds every number"


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}},
        {"rope_interleave": False},
    ],
)
def test_latents_that_cannot_be_rewritten_are_refused_by_their_size(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = copied_nano(tmp_path / "nano", **changes)
    with pytest.raises(BuildError, match=r"64 \+ 16 = 80 numbers .*vLLM has kernels of latent attention for 320, 576"):
        made(tmp_path, str(folder))


@pytest.mark.parametrize(
    ("changes", "can"),
    [({}, True), ({"kv_lora_rank": 48}, False), ({"qk_nope_head_dim": 48}, False), ({"v_head_dim": 256}, False)],
)
def test_only_what_stays_the_same_to_the_bit_is_rewritten(changes: dict[str, Any], can: bool) -> None:
    config = json.loads((Path(NANO) / "config.json").read_text("utf-8"))
    assert can_widen(config | changes) is can
