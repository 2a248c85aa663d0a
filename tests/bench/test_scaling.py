"""Cases on several GPUs and their table; checkpoints of published shapes. Run: pytest tests/bench/test_scaling.py"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench.gpu import scaling, shapes
from bench.gpu.scaling import CASES, STREAMS, Case
from bench.gpu.writing import checkpoint_command

from triune_builder.checkpoint import open_checkpoint
from triune_builder.graph.promises import check_weights

ROOT = Path(__file__).parents[2]


def figures(gpus: int, speed: float) -> dict[str, Any]:
    decode = {str(n): {"tokens_per_s": [speed * n], "first_token_ms": {"p50": 20}, "a_token_ms": {"p50": 5}} for n in STREAMS}
    memory = {"at rest": [2048] * 8}
    bare = {"decode": decode, "gpu_memory_mib": memory, "kv_blocks": 16, "block_tokens": 64}
    ratios = {str(n): {"tokens_per_s": 0.97} for n in STREAMS}
    one = {"bare": bare, "ensemble": {"decode": decode, "start_s": {"all": 61.4}}, "ensemble / bare": ratios}
    plan = {"bytes": 2**30, "kv_bytes_per_token": 2**20, "tokens_per_s": {str(n): 110.0 * n for n in STREAMS}}
    return {"measured": {str(gpus): one}, "predicted": plan, "failed": {}}


def test_a_case_stands_beside_that_of_fewest_gpus_and_beside_the_plan() -> None:
    found = {"70b-fp8-tp2": figures(2, 100.0), "70b-fp8-tp8": figures(8, 300.0), "r1-8-layers-fp8-tp4-ep": figures(4, 50.0)}
    two, eight, experts = scaling.rows(found)
    assert two[:4] == ["70b, fp8", "2", "61", "2.0 (1.00)"] and two[4] == "100 (1.10)"
    assert eight[4:8] == ["300 (0.37)", "2,400 (0.37)", "19,200 (0.37)", "76,800 (0.37)"]
    assert eight[9] == "0.75 / 0.75 / 0.75 / 0.75" and eight[8] == "0.970 / 0.970 / 0.970 / 0.970"
    assert experts[0] == "r1-8-layers, fp8, whole experts" and experts[9] == "1.00 / 1.00 / 1.00 / 1.00"
    assert scaling.table(found).count("\n") == 4


def test_the_next_call_measures_what_is_left_and_nothing_begins_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun, broken, clock = list[str](), {"70b-bf16-tp4"}, [0.0]

    def measure(case: Case, folder: Path) -> None:
        begun.append(case.name)
        clock[0] += 100.0
        (folder / case.shape).mkdir(exist_ok=True)
        (folder / case.shape / "model.safetensors").touch()
        if case.name in broken:
            raise RuntimeError("no NVLink")
        (folder / "cases" / f"{case.name}.json").write_text(json.dumps(figures(case.gpus, 1.0)))

    def called(*options: str) -> str:
        clock[0] = 0.0
        begun.clear()
        monkeypatch.setattr("sys.argv", ["scaling", f"--folder={tmp_path}", *options])
        scaling.main()
        return capsys.readouterr().out

    monkeypatch.setattr(scaling, "measure", measure)
    monkeypatch.setattr(scaling.time, "monotonic", lambda: clock[0])
    called("--gpus=4", "--seconds=700")
    assert begun == ["r1-8-layers-fp8-tp4", "r1-8-layers-fp8-tp4-ep", "70b-bf16-tp4", "70b-fp8-tp4", "r1-8-layers-fp8-tp2"]
    assert (tmp_path / "cases" / "70b-bf16-tp4.failed").read_text() == "no NVLink"
    broken.clear()
    said = called("--gpus=4", "--seconds=2000")
    assert begun[0] == "70b-bf16-tp4" and not list((tmp_path / "cases").glob("*.failed"))
    assert len(list((tmp_path / "cases").glob("*.json"))) == sum(case.gpus <= 4 for case in CASES) == said.count("\n") - 2
    assert called("--tables") == said and not begun


@pytest.mark.parametrize("gpus", [4, 8])
def test_the_plan_expects_something_of_a_case(gpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(shapes.SHAPES, "r1-8-layers", shapes.SHAPES["tiny-r1"])
    checkpoint = shapes.write_checkpoint("r1-8-layers", tmp_path / "m")
    case = Case(shape="r1-8-layers", precision="bf16", gpus=gpus, whole_experts=True)
    expected = scaling.predicted(case, checkpoint)
    assert set(expected["tokens_per_s"]) == set(map(str, STREAMS)) and min(expected["tokens_per_s"].values()) > 0
    assert expected["bytes"] > 0 and expected["kv_bytes_per_token"] == 3 * 2 * (512 + 64)


@pytest.mark.parametrize("name", ["tiny", "tiny-llama", "tiny-qwen3", "tiny-r1"])
def test_a_random_checkpoint_holds_what_its_config_promises(name: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(shapes.write_checkpoint(name, tmp_path / "m")), cache=tmp_path)
    check_weights(checkpoint.config, checkpoint.weights)
    norm = checkpoint.weights["model.layers.0.input_layernorm.weight"].float32()
    assert abs(norm.mean() - 1) < 0.05 < abs(checkpoint.weights["lm_head.weight"].float32()).max()


def test_a_process_of_its_own_writes_the_same_checkpoint(tmp_path: Path) -> None:
    here, there = shapes.write_checkpoint("tiny", tmp_path / "here"), tmp_path / "the 'other' one"
    subprocess.run(checkpoint_command("tiny", there), check=True, cwd=ROOT)
    assert {file.name: file.read_bytes() for file in there.iterdir()} == {
        file.name: file.read_bytes() for file in here.iterdir()
    }


@pytest.mark.parametrize("module", ["__main__", "distributed", "scaling"])
def test_what_measures_leaves_pytorch_to_others(module: str) -> None:
    code = f"import sys, bench.gpu.{module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_eight_bit_blocks_are_read_as_r1s_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = shapes.SHAPES["r1-8-layers"]["quantization_config"]
    monkeypatch.setitem(shapes.SHAPES, "tiny-fp8", shapes.SHAPES["tiny-r1"] | {"quantization_config": blocks})
    checkpoint = open_checkpoint(str(shapes.write_checkpoint("tiny-fp8", tmp_path / "m")), cache=tmp_path)
    check_weights(checkpoint.config, checkpoint.weights)
    expert = checkpoint.weights["model.layers.1.mlp.experts.7.down_proj.weight"]
    assert expert.dtype == "F8_E4M3" and np.isclose(expert.float32().std(), 0.08, rtol=0.03)
