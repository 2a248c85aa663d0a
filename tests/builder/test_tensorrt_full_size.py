"""TensorRT engines of models at full size. Run: pytest tests/builder/test_tensorrt_full_size.py; `-m slow` for more."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fakes import qwen2_shaped
from triune_builder.inputs import Settings
from triune_builder.pipeline import build
from triune_builder.plan import BuildPlan
from triune_builder.verify.report import BuildReport
from triune_runtime.manifest import EngineManifest
from triune_runtime.targets.tensorrt.plan import TensorRtPlan

ROOT = Path(__file__).parents[2]


def published(plan: BuildPlan, folder: Path) -> tuple[BuildReport, EngineManifest]:
    """Build into `folder`, reading checkpoints where `make engine` keeps them."""
    cache = folder / "build" / ".cache"
    cache.mkdir(parents=True)
    (ROOT / "build" / ".cache" / "checkpoints").mkdir(parents=True, exist_ok=True)
    (cache / "checkpoints").symlink_to(ROOT / "build" / ".cache" / "checkpoints")
    built = build(plan, Settings(build_dir=folder / "build"))
    inside = next(built.repository.rglob("engine.json")).parent
    return BuildReport.read(inside), EngineManifest.load(inside)


@pytest.mark.parametrize(
    "precision", ["fp16", *(pytest.param(p, marks=pytest.mark.slow) for p in ("bf16", "int8", "fp8", "int4"))]
)
def test_smollm2_is_published_with_its_parsed_network_within_the_budget(precision: str, tmp_path: Path) -> None:
    plan = BuildPlan(target="tensorrt", precision=precision, options={"compute_capability": ["8.9"]})
    report, manifest = published(plan, tmp_path)
    found = report.verification
    assert found is not None and found.decode is not None and not report.problems
    assert found.text_tokens > 150
    halves = 2 * 135e6  # bytes of the weights as float16; the rest is code
    assert TensorRtPlan.of(manifest).plan_bytes < halves + 30e6


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_an_engine_of_the_size_of_qwen2_1_5b_is_built(tmp_path: Path) -> None:
    model = qwen2_shaped.write(tmp_path / "qwen2-shaped")
    options = {"compute_capability": ["8.9"]}
    plan = BuildPlan(model=str(model), target="tensorrt", precision="fp16", options=options, verify="none")
    report, manifest = published(plan, tmp_path)
    print([dataclasses.asdict(stage) for stage in report.stages])
    assert 3.0e9 < TensorRtPlan.of(manifest).plan_bytes < 3.3e9
