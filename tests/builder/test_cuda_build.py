"""A build for CUDA publishes a graph, its weights and where each lies, proved without a GPU; or refuses with the reason.

Run: pytest tests/builder/test_cuda_build.py
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fakes import tiny_build
from fakes.cuda_graphs import lowered, tiny
from fakes.tiny_folders import write_folder
from triune_builder.checkpoint.folder import open_folder
from triune_builder.dry_run import dry_run
from triune_builder.errors import BuildError
from triune_builder.inputs import Settings
from triune_builder.pipeline import FAILED, build
from triune_builder.plan import BuildPlan
from triune_builder.targets import find_target
from triune_builder.targets.cuda.kernels import block_tokens, group_size
from triune_builder.targets.cuda.precisions import PRECISIONS
from triune_runtime.manifest import EngineManifest, Limits
from triune_runtime.targets.cuda.plan import CudaPlan
from triune_runtime.targets.device.stored import StoredWeight, load_weights

LIMITS = Limits(max_sequences=4, max_length=100, prefill_chunk=16)


def plan_of(root: Path, architecture: str = "llama", form: str = "BF16", **changes: Any) -> BuildPlan:
    folder = write_folder(root / "tiny", tiny(architecture), form)
    return BuildPlan(**({"model": str(folder), "target": "cuda", "limits": LIMITS} | changes))


def settings(root: Path, **changes: Any) -> Settings:
    return dataclasses.replace(tiny_build.settings(root), **changes)


def published(repository: Path) -> tuple[Path, EngineManifest]:
    inside = next(repository.rglob("engine.json")).parent
    return inside, EngineManifest.load(inside)


def test_a_build_publishes_graph_weights_and_manifest_and_nothing_the_second_time(tmp_path: Path) -> None:
    plan, where = plan_of(tmp_path), settings(tmp_path)
    built = build(plan, where)
    inside, manifest = published(built.repository)
    assert (manifest.target, manifest.precision, manifest.verified) == ("cuda", "bf16", "network")
    plan_ = CudaPlan.of(manifest)
    assert (plan_.dtype, plan_.block_tokens) == ("bfloat16", 256) and plan_.decoder["shape"]["block_tokens"] == 256
    assert {(c.dtype, c.window) for c in manifest.cache} == {("bfloat16", None)}
    assert manifest.kv_bytes_per_token == 2 * 2 * 2 * 16 * 2  # layers, keys and values, heads, numbers, bytes
    assert "VERIFIED IN PART" in (inside / "report.txt").read_text()
    graph = onnx.load(str(inside / manifest.engine), load_external_data=False).graph
    inputs = "input_ids cu_seqlens past_seqlens block_table attention_metadata logits_at".split()
    assert [v.name for v in graph.input] == [*inputs, *(f"past.{c.name}" for c in manifest.cache)]
    assert [v.name for v in graph.output] == ["logits"]
    assert build(plan, where).unchanged
    assert not build(dataclasses.replace(plan, precision="bf16-fp8kv"), where).unchanged
    _, other = published(plan.repository(where.build_dir))
    assert {c.dtype for c in other.cache} == {"float8_e4m3fn"}


@pytest.mark.parametrize("architecture", ["qwen3", "deepseek_v3"])
@pytest.mark.parametrize("precision", ["bf16", "int4"])
def test_the_runtime_is_told_of_every_weight_however_small(architecture: str, precision: str, tmp_path: Path) -> None:
    engine = lowered(tiny(architecture), precision, tmp_path)
    graph = onnx.load(str(tmp_path / engine.manifest.engine), load_external_data=False).graph
    listed = {weight.name for weight in load_weights(tmp_path)}
    inside = {tensor.name for tensor in graph.initializer} - listed
    assert not [name for name in inside if name.startswith(("model.", "lm_head.", "rope."))]
    read = {name for node in graph.node for name in node.input}
    assert listed <= read
    names = {name.rpartition(".self_attn.")[2] for name in listed}
    assert "q_norm.weight" in names or architecture != "qwen3"


PARTS = {
    "query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj", "out": "self_attn.o_proj",
    "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj", "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm", "query_norm": "self_attn.q_norm", "key_norm": "self_attn.k_norm",
}  # fmt: skip


@pytest.mark.parametrize(("architecture", "tied"), [("llama", True), ("qwen2", False), ("qwen3", True)])
def test_the_plan_says_which_weights_a_dense_decoders_parts_are(architecture: str, tied: bool, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny", tiny(architecture, tie_word_embeddings=tied), "BF16")
    plan = BuildPlan(model=str(folder), target="cuda", limits=LIMITS, verify="none")
    inside, manifest = published(build(plan, settings(tmp_path)).repository)
    weights = {weight.name: weight for weight in load_weights(inside)}
    tensors, said = open_folder(folder).weights, CudaPlan.of(manifest).decoder

    def numbers(part: list[Any], rows: int) -> Any:
        name, first = part
        halves = np.frombuffer(stored(weights[name], inside), np.uint16).astype(np.uint32) << 16
        return halves.view(np.float32).reshape(weights[name].shape)[first : first + rows]

    for number, layer in enumerate(said["layers"]):
        for part, place in layer.items():
            kind = "bias" if part.endswith("_bias") else "weight"
            expected = tensors[f"model.layers.{number}.{PARTS[part.removesuffix('_bias')]}.{kind}"].float32()
            assert np.array_equal(numbers(place, len(expected)), expected), part
    names = {"embedding": "model.embed_tokens.weight", "norm": "model.norm.weight"}
    names["head"] = names["embedding"] if tied else "lm_head.weight"
    for part, name in names.items():
        assert said["whole"][part] == [name, 0] and weights[name].shape == tensors[name].shape
    assert said["shape"]["qkv_bias"] == (architecture == "qwen2") == ("query_bias" in said["layers"][0])
    assert said["shape"]["qk_norm"] == (architecture == "qwen3") == ("query_norm" in said["layers"][0])
    assert {tuple(pair) for pair in said["caches"]} == {("0.key", "0.value"), ("1.key", "1.value")}


@pytest.mark.parametrize(
    ("architecture", "precision", "changes"),
    [("deepseek_v3", "bf16", {}), ("llama", "bf16", {"o_bias": True}), ("llama", "bf16", {"mlp_bias": True}),
     ("qwen2", "bf16", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1})],
)  # fmt: skip
def test_of_what_is_no_plain_decoder_the_plan_says_nothing(
    architecture: str, precision: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "tiny", tiny(architecture, **changes), "BF16")
    plan = BuildPlan(model=str(folder), target="cuda", precision=precision, limits=LIMITS, verify="none")
    _, manifest = published(build(plan, settings(tmp_path)).repository)
    assert CudaPlan.of(manifest).decoder == {}


def stored(weight: StoredWeight, folder: Path) -> bytes:
    with (folder / weight.file).open("rb") as file:
        file.seek(weight.offset)
        return file.read(weight.length)


def test_weights_of_the_engines_own_form_are_read_in_the_checkpoints_file(tmp_path: Path) -> None:
    plan, where = plan_of(tmp_path), settings(tmp_path)
    inside, _ = published(build(plan, where).repository)
    original = tmp_path / "tiny" / "model.safetensors"
    weights = {weight.name: weight for weight in load_weights(inside)}
    in_place = {name for name, weight in weights.items() if weight.file == original.name}
    tensors = open_folder(tmp_path / "tiny").weights
    layers = [f"model.layers.{i}." for i in range(2)]
    assert in_place == {"model.embed_tokens.weight", "model.norm.weight"} | {
        f"{layer}{name}.weight"
        for layer in layers
        for name in ("input_layernorm", "post_attention_layernorm", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
                     "mlp.down_proj")
    }  # fmt: skip
    assert (inside / original.name).samefile(original)
    for name in in_place:
        place = tensors[name].location()
        assert place is not None
        assert (weights[name].offset, weights[name].length) == place[1:]
    fused = weights["model.layers.0.self_attn.qkv_proj.weight"]
    rows = np.concatenate([tensors[f"model.layers.0.self_attn.{n}_proj.weight"].float32() for n in "qkv"])
    assert fused.file == "model.data" and fused.shape == rows.shape
    halves = np.frombuffer(stored(fused, inside), np.uint16).astype(np.uint32) << 16
    assert np.array_equal(halves.view(np.float32).reshape(rows.shape), rows)


@pytest.mark.parametrize("form", ["F16", "F32"])
def test_weights_of_another_form_are_written_in_the_engines(form: str, tmp_path: Path) -> None:
    inside, _ = published(build(plan_of(tmp_path, form=form), settings(tmp_path)).repository)
    weights = load_weights(inside)
    assert {weight.file for weight in weights} == {"model.data"}
    assert {weight.dtype for weight in weights} == {"bfloat16"}
    assert all(weight.length == 2 * np.prod(weight.shape) for weight in weights)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_dry_run_says_what_a_build_writes(precision: str, tmp_path: Path) -> None:
    plan, where = plan_of(tmp_path, "qwen2", precision=precision, verify="none"), settings(tmp_path)
    estimate = dry_run(plan, where).estimate
    inside, manifest = published(build(plan, where).repository)
    weights = load_weights(inside)
    total = sum(weight.length for weight in weights if weight.name.startswith(("model.", "lm_head.")))
    size = estimate.precisions[precision]
    assert estimate.kv_bytes_per_token == manifest.kv_bytes_per_token
    own = sum(weight.length for weight in weights if weight.file != "model.data")
    small = sum(2 * t.size for t in open_folder(tmp_path / "tiny").weights.values() if len(t.shape) == 1)
    assert abs(size.in_place - own) <= small and abs(size.written - (total - own)) <= small
    assert size.loaded == size.in_place + size.written


def test_what_attention_does_not_take_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    for changes, said, hint in (
        ({"head_dim": 24}, "heads have 24 numbers; attention of target cuda takes multiples of 16", "tensorrt"),
        ({"head_dim": 272}, "heads have 272 numbers; attention of target cuda takes at most 256", "cpu"),
    ):
        folder = write_folder(tmp_path / str(changes["head_dim"]), tiny("llama", **changes), "BF16")
        with pytest.raises(BuildError, match=said) as error:
            build(BuildPlan(model=str(folder), target="cuda"), settings(tmp_path))
        assert f"--target {hint}" in str(error.value.hint)
    folder = write_folder(tmp_path / "rope", tiny("deepseek_v3", qk_rope_head_dim=8, kv_lora_rank=24), "BF16")
    with pytest.raises(BuildError, match="8 numbers of a head are rotated; attention of target cuda takes multiples of 16"):
        build(BuildPlan(model=str(folder), target="cuda"), settings(tmp_path))


def test_columns_that_blocks_do_not_divide_are_refused_with_what_can_be_built(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny", tiny("llama", intermediate_size=40), "BF16")
    with pytest.raises(BuildError, match=r"down_proj.weight has 40 columns, which blocks of 32 do not divide") as error:
        build(BuildPlan(model=str(folder), target="cuda", precision="int4"), settings(tmp_path))
    assert error.value.hint == "choose --precision bf16 (make: PRECISION=bf16), or fp16, bf16-fp8kv, fp16-fp8kv"


def test_choices_that_cuda_does_not_have_are_refused() -> None:
    with pytest.raises(BuildError, match="target cuda has no precision 'w8a8'; known: bf16, fp16, int4, bf16-fp8kv"):
        BuildPlan(target="cuda", precision="w8a8")
    with pytest.raises(BuildError, match="target cuda has no speculation 'on'; known: off"):
        BuildPlan(target="cuda", speculation="on")
    with pytest.raises(BuildError, match="target cuda has no verify 'layers'; known: auto, full, network, none"):
        BuildPlan(target="cuda", verify="layers")


def test_a_proof_on_a_gpu_that_is_not_here_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="--verify full runs the engine, which this machine cannot") as error:
        build(plan_of(tmp_path, verify="full"), settings(tmp_path))
    assert "choose --verify network" in str(error.value.hint)


def test_a_build_over_its_budget_publishes_nothing(tmp_path: Path) -> None:
    row = PRECISIONS["bf16"]
    strict = dataclasses.replace(row, network=dataclasses.replace(row.network, logits_error=1e-7))
    target = dataclasses.replace(find_target("cuda"), precisions={"bf16": strict})
    where, plan = settings(tmp_path), plan_of(tmp_path)
    with pytest.raises(BuildError, match="over its budget and was not published"):
        build(plan, where, target=target)
    assert not plan.repository(where.build_dir).exists()
    assert (plan.folder(where.build_dir) / FAILED / "report.txt").exists()


def test_weights_that_float16_cannot_hold_are_refused_by_name(tmp_path: Path) -> None:
    checkpoint = tiny("llama")
    checkpoint.weights["model.layers.0.mlp.down_proj.weight"].array[0, 0] = 1e5
    with pytest.raises(BuildError, match=r"down_proj.weight has numbers up to 1e\+05, too large for float16"):
        lowered(checkpoint, "fp16", tmp_path)
    lowered(checkpoint, "bf16", tmp_path)


def test_blocks_are_as_small_as_flash_attention_reads_in_place() -> None:
    assert [block_tokens([dim]) for dim in (16, 64, 80, 128, 256, 576)] == [256, 256, 128, 128, 128, 128]
    assert [group_size(columns) for columns in (8960, 96, 97)] == [256, 96, 97]
