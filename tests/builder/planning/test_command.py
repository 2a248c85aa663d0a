"""`triune plan` as people and programs use it. Run: pytest tests/builder/planning/test_command.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fakes.gguf_files import llama_weights, write_gguf
from fakes.planned import config_file, geometry, rows
from fakes.published import Published
from fakes.tiny_dense import dense_checkpoint
from fakes.tiny_folders import write_folder
from triune_builder import cli
from triune_builder.errors import BuildError
from triune_builder.planning.sources import Planned, open_model

ARTICLE = ("--params", 45e9, "--layers", 32, "--hidden", 4096, "--heads", 32, "--kv-heads", 8, "--vocab", 129280)
MANY = ("--layers", 1000, "--hidden", 64, "--heads", 4, "--vocab", 100, "--experts", 16_000, "--experts-per-token", 1)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["plan", *(str(a) for a in arguments)], env={"COLUMNS": "200"})


def planned(*arguments: object) -> dict[str, Any]:
    done = invoke(*arguments, "--json")
    assert done.exit_code == 0, done.output
    (line,) = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return config_file(tmp_path, "r1-distill-qwen-1.5b")


def test_a_config_alone_is_enough(small: Path) -> None:
    found = planned(small, "--gpu", "l4")
    assert found["parameters"] == geometry("r1-distill-qwen-1.5b").parameters
    assert found["ranks"][0]["weights"] == 2 * found["parameters"] == found["stored_bytes"]
    assert found["kv_bytes_per_token"] == 28_672
    assert planned(small.parent, "--gpu", "l4")["ranks"] == found["ranks"]  # its folder is the same model


def test_headers_decide_where_they_are(tmp_path: Path) -> None:
    published = Published.read("r1-distill-qwen-1.5b")
    folder = published.write(tmp_path / "model")
    assert open_model(str(folder), tmp_path).stored == 2 * sum(published.parameters.values())


@pytest.mark.parametrize("form", ["GPTQ", "W4A16", "F8_E4M3"])
def test_a_folder_of_packed_weights_is_the_model_that_it_packs(tmp_path: Path, form: str) -> None:
    checkpoint = dense_checkpoint("llama", hidden_size=64, intermediate_size=96, head_dim=16)
    packed, plain = (write_folder(tmp_path / name, checkpoint, kind) for name, kind in (("packed", form), ("plain", "F32")))
    found, whole = (open_model(str(folder), tmp_path) for folder in (packed, plain))
    assert found.geometry.parameters == whole.geometry.parameters and found.geometry.layers == whole.geometry.layers
    assert found.stored is not None and whole.stored is not None and found.stored < whole.stored


def test_a_gguf_is_a_model(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", llama_weights())
    found = planned(tmp_path / "tiny.gguf", "--prompt", 8, "--output", 8)
    assert found["architecture"] == "llama" and 0 < found["stored_bytes"] <= found["parameters"] * 4


def test_r1_nano_is_known_by_its_name() -> None:
    assert planned("r1-nano", "--prompt", 8, "--output", 8)["architecture"] == "deepseek_v3"


def test_a_hub_id_is_looked_up_in_the_cache_alone() -> None:
    done = invoke("nobody/has-this-model")
    assert done.exit_code == 1 and "no config.json of nobody/has-this-model" in done.stderr and "hf download" in done.stderr


def test_numbers_alone_are_a_model() -> None:
    found = planned(*ARTICLE, "--experts", 16, "--experts-per-token", 2, "--gpu", "a100-80", "--gpus", 2, "--sequences", 8)
    assert found["parameters"] == pytest.approx(45e9, rel=0.01) and found["active_parameters"] < 9e9
    assert found["split"] == {"tensor": 2, "pipeline": 1, "data": 1, "expert": False}
    assert found["rule_gb"]["rule"] == pytest.approx(found["parameters"] * 2.2e-9 + 8 * 2048 * 0.0005)


def test_degrees_that_are_given_are_kept(small: Path) -> None:
    found = planned(small, "--gpus", 4, "--tensor-parallel", 2, "--pipeline-parallel", 1, "--data-parallel", 2)
    assert found["split"]["tensor"] == 2 and found["candidates"] == [] and found["why"] == "as asked for"
    half = planned(small, "--gpus", 4, "--pipeline-parallel", 2)
    assert all(one["split"]["pipeline"] == 2 for one in half["candidates"]) and len(half["candidates"]) > 1


def test_a_plan_says_how_its_engine_is_built(small: Path) -> None:
    asked = ("--gpus", 2, "--gpu", "h200", "--tensor-parallel", 2, "--pipeline-parallel", 1, "--data-parallel", 1)
    degrees = {"tensor_parallel": 2, "pipeline_parallel": 1, "data_parallel": 1}
    assert planned(small, *asked)["build"] == {"precision": "bf16", "gpu": "h200", **degrees}
    assert f"make engine TARGET=vllm MODEL={small} PRECISION=bf16 GPU=h200 TENSOR_PARALLEL=2" in invoke(small, *asked).stdout
    assert planned(small, *asked, "--gpus-per-machine", 1, "--link", 20)["build"] == {
        "precision": "bf16",
        **degrees,
        "nodes": 2,
    }
    assert planned(small)["build"] == {}, "one GPU has an engine of ours"


def test_what_is_planned_alone_has_no_build(tmp_path: Path) -> None:
    mixture = next(row["model"] for row in rows() if "30B" in row["model"])
    assert planned(config_file(tmp_path, mixture), "--gpus", 2)["build"] == {}


def test_latents_are_planned_as_wide_as_vllm_keeps_them() -> None:
    short = ("r1-nano", "--prompt", 8, "--output", 8)
    assert planned(*short)["kv_bytes_per_token"] == 7 * 80 * 2
    assert planned(*short, "--engine", "vllm")["kv_bytes_per_token"] == 7 * 576 * 2


def test_people_get_tables_and_a_page(small: Path, tmp_path: Path) -> None:
    done = invoke(small, "--plot", tmp_path / "plan.html")
    assert done.exit_code == 0, done.output
    for words in ("why this split", "memory of a GPU", "kept", "sequences that fit", "tokens/s decoding", "the article's rule"):
        assert words in done.stdout
    page = (tmp_path / "plan.html").read_text()
    assert page.count("<svg") == 3 and "Memory of a GPU" in page and "http" not in page
    rank = planned(small)["ranks"][0]
    parts = [rank[name] for name in ("weights", "activations", "runtime", "kv_room", "kept_free")]
    assert sum(parts) == planned(small)["gpu"]["bytes"] and "kept free: a tenth of what weights" in page
    assert page.count("<rect") == 7  # a hatch, a bar of five parts, and its frame


def test_a_load_is_simulated_and_says_how_many_replicas_it_needs(small: Path) -> None:
    arguments = (small, "--simulate", "poisson:40,500,100", "--requests", 300, "--slo", "first_token=1s,between=50ms")
    found = planned(*arguments)
    assert found["simulated"]["requests"] == 300 and found["simulated"]["kept"] >= 0.99 and found["fewest"]
    assert planned(*arguments) == found  # the same seed
    assert planned(*arguments, "--replicas", 3)["times_planned"] == 3
    assert "goodput" in invoke(*arguments).stdout


@pytest.mark.parametrize(
    ("arguments", "problem", "remedy"),
    [
        ((), "no MODEL", "r1-nano"),
        (("MODEL", "--params", 1e9), "and --params say", "leave out"),
        (("MODEL", "--layers", 5, "--vocab", 9), "and --layers, --vocab say", "leave out"),
        (("MODEL", "--mtp"), "no layers that predict", "leave it out"),
        (("MODEL", "--seed", -1), "--seed is -1", "--seed 0"),
        (("MODEL", "--gpu-memory", "nan"), "--gpu-memory is nan", "GB"),
        (("MODEL", "--network", "inf"), "--network is inf", "--network 400"),
        (("--params", "nan", *ARTICLE[2:]), "--params is nan", "own numbers"),
        (("--params", 1e30, *ARTICLE[2:]), "--params is 1e+30", "own numbers"),
        (("--params", 1e12, *MANY), "1,000 layers with 16,000 experts", "--experts"),
        (("MODEL", "--gpu", "h201"), "unknown GPU 'h201'", "h200"),
        (("MODEL", "--gpus", 0), "--gpus is 0", "choose"),
        (("MODEL", "--gpus", 2, "--engine", "triune"), "run on one", "--engine vllm"),
        (("MODEL", "--precision", "w8a8"), "unknown precision 'w8a8'", "bf16"),
        (("MODEL", "--gpus", 2, "--precision", "int4"), "int4 with KV in bf16: vLLM's engines have bf16 with", "bf16"),
        (("MODEL", "--kv-dtype", "int2"), "unknown KV type", "bf16"),
        (("MODEL", "--bandwidth", -1), "--bandwidth is -1", "GB/s"),
        (("MODEL", "--prompt", 200_000), "the model is made for 131,072", "shorter"),
        (("MODEL", "--gpu", "tiny", "--gpu-memory", 4, "--bandwidth", 300, "--matrix-rate", 50), "cannot hold it", "--gpus"),
        (("MODEL", "--gpus", 2, "--tensor-parallel", 3), "--gpus 2 cannot be split as tensor 3", "product"),
        (
            (*"MODEL --gpus 3 --tensor-parallel 3 --pipeline-parallel 1 --data-parallel 1".split(),),
            "which does not divide",
            "--tensor-parallel 2",
        ),
        (("MODEL", "--expert-parallel", "yes"), "on, off, auto", "choose"),
        (("MODEL", "--simulate", "poisson:1"), "poisson:RATE", "requests a second"),
        (("MODEL", "--slo", "fast"), "--slo has 'fast'", "first_token=2s"),
        (("MODEL", "--plot", "plan.png"), "FILE.html", "plan.html"),
        (("MODEL", "--plot", "/nowhere/plan.html"), "--plot is /nowhere/plan.html, which cannot be written", "plan.html"),
        (("--params", 1e9, "--layers", 2), "--hidden, --heads, --vocab", "--params 45e9"),
        ((*ARTICLE, "--experts", 4), "go together", "both"),
        (("--params", 1e6, *ARTICLE[2:]), "too few", "more --params"),
    ],
)
def test_what_cannot_be_is_one_sentence_with_its_remedy(
    small: Path, arguments: tuple[object, ...], problem: str, remedy: str
) -> None:
    done = invoke(*(small if one == "MODEL" else one for one in arguments))
    assert done.exit_code == 1 and "Traceback" not in done.output
    assert problem in done.stderr and remedy in done.stderr.partition("hint:")[2]


def test_a_model_whose_geometry_is_not_understood_is_never_made(tmp_path: Path) -> None:
    config = {"model_type": "gpt_oss"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BuildError, match="gpt_oss"):
        Planned(name="one", config=config)
    for model in (tmp_path, tmp_path / "config.json"):
        with pytest.raises(BuildError, match="gpt_oss"):
            open_model(str(model), tmp_path)
