"""`triune build --dry-run`: what is wrong with a checkpoint is named, what is right is estimated.

Run: pytest tests/builder/test_dry_run.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from fakes.published import Published
from fakes.safetensors_writer import Shape
from fakes.tiny_deepseek import tiny_checkpoint as tiny_deepseek
from fakes.tiny_folders import write_folder
from fakes.tiny_llama import FakeCheckpoint, tiny_checkpoint
from triune_builder import cli
from triune_builder.checkpoint import open_checkpoint
from triune_builder.dry_run import DryRun, dry_run
from triune_builder.errors import BuildError
from triune_builder.estimate import Estimate
from triune_builder.graph.promises import promised_weights
from triune_builder.inputs import Settings
from triune_builder.plan import BuildPlan, folder_of
from triune_builder.progress import Display
from triune_builder.targets import onnx_files
from triune_builder.targets.cpu.compiling import compile_engine
from triune_runtime.manifest import Limits

SMALL = Published.read("r1-distill-qwen-1.5b")
LAYER = "model.layers.3"


def run(model: Path, **choices: Any) -> DryRun:
    return dry_run(
        BuildPlan(model=str(model), **choices), Settings(build_dir=model.parent / "build"), display=Display(quiet=True)
    )


def refused(folder: Path, **changes: Shape | None) -> str:
    with pytest.raises(BuildError) as caught:
        run(SMALL.write(folder / "model", **changes))
    return str(caught.value)


def test_missing_spare_and_misshapen_weights_are_named_in_one_error(tmp_path: Path) -> None:
    said = refused(
        tmp_path,
        **{
            f"{LAYER}.mlp.up_proj.weight": None,
            "lm_head.weight": None,
            f"{LAYER}.self_attn.q_proj.weight": ("BF16", (1536, 1535)),
            f"{LAYER}.mlp.gate_up_proj.weight": ("BF16", (17920, 1536)),
            "model.layers.28.input_layernorm.weight": ("BF16", (1536,)),
        },
    )
    assert f"2 missing: {LAYER}.mlp.up_proj.weight, lm_head.weight" in said or (
        f"2 missing: lm_head.weight, {LAYER}.mlp.up_proj.weight" in said
    )
    assert f"2 spare: {LAYER}.mlp.gate_up_proj.weight, model.layers.28.input_layernorm.weight" in said
    assert f"1 misshapen: {LAYER}.self_attn.q_proj.weight is [1536, 1535], not [1536, 1536]" in said
    assert not folder_of(str(tmp_path / "model"), "cpu", tmp_path / "build").exists()


def test_of_many_the_first_ten_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    gone = {f"model.layers.{i}.self_attn.k_proj.bias": None for i in range(28)}
    said = refused(tmp_path, **gone)
    assert (
        "28 missing: model.layers.0.self_attn.k_proj.bias, " in said
        and "model.layers.9.self_attn.k_proj.bias and 18 more" in said
    )


def test_a_wrong_size_in_the_config_is_found(tmp_path: Path) -> None:
    config = SMALL.config | {"intermediate_size": 8961}
    model = SMALL.write(tmp_path / "model")
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        BuildError, match=r"84 misshapen: model\.layers\.0\.mlp\.gate_proj\.weight is \[8960, 1536\], not \[8961"
    ):
        run(model)


def test_more_tokens_than_the_model_was_made_for_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"--max-length is 200,000; .* made for 131,072"):
        run(SMALL.write(tmp_path / "model"), limits=Limits(max_length=200_000))


def test_kv_memory_follows_the_limits(tmp_path: Path) -> None:
    model = SMALL.write(tmp_path / "model")
    found = run(model, limits=Limits(max_sequences=3, max_length=1000)).estimate
    assert found.kv_bytes_per_slot == 1000 * found.kv_bytes_per_token
    size = found.precisions["int4"]
    assert size.serving == size.loaded + 3 * found.kv_bytes_per_slot


@pytest.mark.parametrize("name", ["llama", "tied llama", "deepseek"])
@pytest.mark.parametrize(
    ("form", "precision"), [("F8_E4M3", "fp8"), *(("BF16", p) for p in ("fp32", "bf16", "fp16", "int8", "int4", "w8a8"))]
)
def test_what_a_build_writes_is_what_was_estimated(tmp_path: Path, name: str, form: str, precision: str) -> None:
    fake = model_of_many_numbers(name)
    model = write_folder(tmp_path / "model", fake, form)
    plan = BuildPlan(model=str(model), precision=precision, limits=Limits(max_length=32))
    expected = run(model, precision=precision, limits=plan.limits).estimate.precisions[precision]
    checkpoint = open_checkpoint(str(model), cache=tmp_path)
    (tmp_path / "engine").mkdir()
    facts = compile_engine(plan, checkpoint, tmp_path / "engine", Display(quiet=True).stage)
    stored = onnx.load(tmp_path / "engine" / onnx_files.MODEL, load_external_data=False).graph.initializer
    lengths = {True: 0, False: 0}
    for tensor in stored:
        if not tensor.name.startswith(("rope.", "blocks.", "const", "shape")):
            entries = {e.key: e.value for e in tensor.external_data}
            lengths[entries.get("location", onnx_files.DATA) == onnx_files.DATA] += int(
                entries.get("length", len(tensor.raw_data))
            )
    assert lengths[True] == pytest.approx(expected.written, abs=8000)  # constants
    assert lengths[False] == pytest.approx(expected.in_place, rel=0.01, abs=1)
    assert (len(facts.files) > 2) == (expected.in_place > 0)


def model_of_many_numbers(name: str) -> FakeCheckpoint:
    if name == "deepseek":
        return tiny_deepseek(hidden_size=128, intermediate_size=256, moe_intermediate_size=64, kv_lora_rank=32, v_head_dim=16)
    return tiny_checkpoint(hidden_size=128, intermediate_size=256, tie_word_embeddings=name == "tied llama")


def test_the_promise_is_what_the_fakes_hold() -> None:
    for fake in (tiny_checkpoint(), tiny_checkpoint(tie_word_embeddings=False), tiny_deepseek()):
        promised = promised_weights(fake.config)
        assert promised.required.items() <= {name: np.shape(t.array) for name, t in fake.weights.items()}.items()


def test_the_command_shows_the_plan_and_prints_its_folder(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(head_dim=16, intermediate_size=64)
    model = write_folder(tmp_path / "model", checkpoint)
    command = ["build", "--dry-run", "--model", str(model), "--build-dir", str(tmp_path / "build")]
    found = CliRunner().invoke(cli.app, command)
    folder = folder_of(str(model), "cpu", tmp_path / "build") / "plan"
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines()[-1] == str(folder) and "KV cache" in found.stdout
    assert {p.name for p in folder.iterdir()} == {"model.onnx", "plan.json"}
    as_json = CliRunner().invoke(cli.app, [*command, "--json"])
    raw = json.loads(as_json.stdout)
    assert raw["plan"] == str(folder) and raw["parameters"] == sum(t.array.size for t in checkpoint.weights.values())
    assert isinstance(run(model).estimate, Estimate)
    assert not (folder.parent / "repository").exists()
