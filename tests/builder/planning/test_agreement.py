"""What `triune plan` proposes a build accepts, and what a build refuses a plan refuses, in the same words.

Run: pytest tests/builder/planning/test_agreement.py
"""

from __future__ import annotations

import json
import random
import re
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fakes.planned import rows
from fakes.published import CONFIGS, Published
from triune_builder.errors import BuildError
from triune_builder.plan import BuildPlan, plan_of
from triune_builder.planning import sources
from triune_builder.planning.asking import Asked, report_of
from triune_builder.planning.geometry import Geometry, geometry_of
from triune_builder.planning.splits import Split, splits
from triune_builder.targets.vllm import asked as of_machine
from triune_builder.targets.vllm import planned
from triune_builder.targets.vllm.target import TARGET
from triune_runtime.machine import Gpu, Machine

SEQUENCES, LENGTH = 64, 2048  # what a plan is for where nobody says more
COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24)
Config = dict[str, Any]


def shapes() -> dict[str, Config]:
    """Published models, and made-up ones of odd sizes."""
    found = {path.stem: Published.read(path.stem).config for path in sorted(CONFIGS.glob("*.json"))}
    found |= {row["model"].split("/")[-1]: row["config"] for row in rows() if row["config"]["model_type"] in ("llama", "qwen3")}
    draw = random.Random(7)
    base = found["r1-distill-llama-8b"]
    for number in range(12):
        kv = draw.choice((1, 2, 3, 4, 5, 8))
        found[f"made up {number}"] = base | {
            "num_attention_heads": kv * draw.choice((1, 3, 4, 5)), "num_key_value_heads": kv, "head_dim": 64,
            "hidden_size": 64 * draw.randint(8, 64), "intermediate_size": 32 * draw.randint(10, 400),
            "num_hidden_layers": draw.randint(1, 40), "vocab_size": draw.randint(1000, 130_000),
        }  # fmt: skip
    return found


SHAPES = shapes()


@lru_cache
def read(text: str) -> Geometry:
    return geometry_of(json.loads(text))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Geometries are read once; this machine has no GPU."""
    for module in (planned, sources):
        monkeypatch.setattr(module, "geometry_of", lambda config, stored: read(json.dumps(config)))
    monkeypatch.setattr(of_machine, "this_machine", lambda: Machine(gpus=()))


def proposed(folder: Path, config: Config, gpus: int, **asked: Any) -> dict[str, Any] | str:
    """What a plan says of a build, or why there is none."""
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    try:
        return dict(report_of(Asked(model=str(path), gpus=gpus, engine="vllm", sequences=SEQUENCES, **asked), folder).build)
    except BuildError as error:
        return str(error)


def built(config: Config, **options: Any) -> Split | str:
    """The split of a build, or why there is none."""
    said = {"target": "vllm", "max_sequences": SEQUENCES, "max_length": LENGTH, **options}
    try:
        plan = plan_of(said)
        return planned.choose(plan, config, ()).split if accepts(plan, config) else ""
    except BuildError as error:
        return str(error)


def accepts(plan: BuildPlan, config: Config) -> bool:
    """As a build of that checkpoint looks at it before anything is made."""
    TARGET.check_checkpoint(plan, SimpleNamespace(config=config, weights={}))  # type: ignore[arg-type]  # all that is read
    return True


@pytest.mark.parametrize("name", SHAPES)
def test_a_build_accepts_what_a_plan_proposes_and_chooses_it_too(name: str, tmp_path: Path) -> None:
    config, kind = SHAPES[name], "l40s" if "made up" in name else "h200"
    fp8 = bool(config.get("quantization_config"))
    for gpus in COUNTS:
        plan = proposed(tmp_path, config, gpus, gpu=kind)
        nodes = {} if gpus <= 8 else {"nodes": -(-gpus // 8)}
        chosen = built(config, gpu=kind, gpus=gpus, precision="fp8" if fp8 else "bf16", **nodes)
        if isinstance(plan, str):
            assert chosen == plan, "refused for the same reason"
        else:
            said = built(config, **plan)
            assert isinstance(said, Split) and said == chosen
            assert (said.gpus, plan.get("nodes", 1)) == (gpus, nodes.get("nodes", 1))


@pytest.mark.parametrize("name", SHAPES)
def test_a_plan_refuses_what_a_build_refuses_in_the_same_words(name: str, tmp_path: Path) -> None:
    config = SHAPES[name]
    precision = "fp8" if config.get("quantization_config") else "bf16"
    outcomes = set()
    for gpus in (1, 2, 3, 6, 16):
        nodes = 2 if gpus == 16 else 1
        for split in splits(read(json.dumps(config)), gpus):
            degrees = dict(zip(("tensor_parallel", "pipeline_parallel", "data_parallel"), split.degrees, strict=True))
            options = {"gpu": "h200", "precision": precision, "nodes": nodes, "expert_parallel": split.expert, **degrees}
            build = built(config, **options)
            plan = proposed(tmp_path, config, gpus, expert_parallel="on" if split.expert else "off", **degrees)
            outcomes.add(type(build))
            assert build == (plan if isinstance(plan, str) else split), (split, nodes)
    assert outcomes == {str, Split}, "some of each"


@pytest.mark.parametrize(
    ("changes", "precision", "said"),
    [
        ({}, "bf16", "weights are FP8, and vLLM keeps them so: .* cannot be built at bf16"),
        ({"kv_lora_rank": 384}, "fp8", "384 [+] 64 = 448 numbers .* kernels of latent attention for 320, 576"),
        ({"architectures": ["Other"]}, "fp8", "config.json says architectures"),
    ],
)
def test_what_vllm_does_not_run_a_plan_for_it_refuses_too(changes: Config, precision: str, said: str, tmp_path: Path) -> None:
    config = SHAPES["deepseek-r1"] | changes
    plan = str(proposed(tmp_path, config, 8, precision=precision))
    assert re.search(said, plan)
    weights = {"w": SimpleNamespace(dtype="F8_E4M3")}
    of_build = plan_of({"target": "vllm", "model": str(tmp_path / "config.json"), "precision": precision})
    with pytest.raises(BuildError) as refused:
        TARGET.check_checkpoint(of_build, SimpleNamespace(config=config, weights=weights))  # type: ignore[arg-type]
    assert str(refused.value) == plan


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"gpu": "h200", "gpus": 4}),
        ({"nodes": 2}, {"gpu": "h200", "gpus": 8}),
        ({"tensor_parallel": 2}, {"gpu": "h200"}),
        ({"gpus": 2}, {"gpu": "h200"}),
        ({"gpu": "l4"}, {}),
    ],
)
def test_the_gpus_that_are_there_are_planned_for(
    options: dict[str, Any], expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Machine(gpus=(Gpu("NVIDIA H200", "9.0"),) * 4)
    monkeypatch.setattr(of_machine, "this_machine", lambda: there)
    assert plan_of({"target": "vllm", **options}).options == options | expected
    assert plan_of({"target": "cpu"}).options == {}
    monkeypatch.setattr(of_machine, "this_machine", lambda: Machine(gpus=(Gpu("NVIDIA H200 MIG 1g.18gb", "9.0"),)))
    assert plan_of({"target": "vllm", **options}).options == options, "of a GPU that is not known nothing is planned"


def test_devices_of_one_layer_are_in_several_machines_only_where_that_is_asked_for(tmp_path: Path) -> None:
    config = SHAPES["deepseek-r1"]
    wide = {"tensor_parallel": 16, "pipeline_parallel": 1, "data_parallel": 1}
    assert built(config, gpu="h100", precision="fp8", nodes=2, **wide) == Split(tensor=16)
    report = report_of(Asked(model=str(saved(tmp_path, config)), gpu="h100", gpus=16), tmp_path)
    (left,) = [one for one in report.candidates if one.split == Split(tensor=16)]
    assert "spans machines of 8" in left.why and "TENSOR_PARALLEL=16" in left.remedy
    assert report.best.split.tensor <= 8


def saved(folder: Path, config: Config) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "config.json"
