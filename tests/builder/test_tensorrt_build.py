"""TensorRT-RTX builds engines without a GPU, for named compute capabilities, and refuses with the reason.

Run: pytest tests/builder/test_tensorrt_build.py
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from fakes import tiny_build
from fakes.tensorrt_engines import ARCHITECTURES, RTX, Lowered, lowered, tiny
from fakes.tiny_folders import write_folder
from triune_builder.errors import BuildError
from triune_builder.inputs import Settings
from triune_builder.pipeline import FAILED, build
from triune_builder.plan import BuildPlan
from triune_builder.targets import find_target
from triune_builder.targets.tensorrt import adapter, engine_report, gpus
from triune_builder.targets.tensorrt.adapter import Shapes
from triune_builder.targets.tensorrt.precisions import PRECISIONS, find_precision
from triune_runtime.manifest import EngineManifest, Limits
from triune_runtime.targets.tensorrt.plan import TensorRtPlan

TARGETS = ("8.0", "8.9", "12.0")
ACCEPTED = [
    (precision, target)
    for precision in ("fp16", "int4", "fp8")
    for target in TARGETS
    if target in PRECISIONS[precision].capabilities
]


def make(engine: Lowered, plan: Path, *targets: str, **changes: Any) -> list[str]:
    return adapter.build(engine.parse(), plan, engine.shapes(), compute_capabilities=targets, **changes)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("precision", ["fp16", "int4", "fp8"])
def test_an_engine_is_built_for_every_gpu_that_takes_the_precision(architecture: str, precision: str, tmp_path: Path) -> None:
    engine = lowered(tiny(architecture), precision, tmp_path)
    rt, plan = adapter.load(RTX), tmp_path / "model.plan"
    network = engine.parse()
    for _, target in (pair for pair in ACCEPTED if pair[0] == precision):
        assert adapter.build(network, plan, engine.shapes(), compute_capabilities=(target,)) == []
        assert adapter.integrity(rt, plan) in ("whole", "loaded")
    kinds = [layer.type.name for layer in network.layers()]
    assert kinds.count("KV_CACHE_UPDATE") == len(engine.bundle.cache)
    assert kinds.count("ATTENTION_INPUT") == tiny(architecture).config["num_hidden_layers"]


def test_weights_stay_quantized_in_the_plan(tmp_path: Path) -> None:
    sizes = {}
    for precision in ("fp16", "int8", "int4", "fp8"):
        (tmp_path / precision).mkdir()
        checkpoint = tiny("llama", hidden_size=512, intermediate_size=1024, num_hidden_layers=4)
        engine = lowered(checkpoint, precision, tmp_path / precision)
        make(engine, tmp_path / "plan", "8.9")
        sizes[precision] = (tmp_path / "plan").stat().st_size
    linears = 2 * sum(t.array.size for name, t in checkpoint.weights.items() if "_proj" in name)  # as halves
    saved = {precision: (sizes["fp16"] - size) / linears for precision, size in sizes.items()}
    assert 0.55 < saved["int4"] < 0.76 and 0.35 < saved["int8"] < 0.51 and 0.35 < saved["fp8"] < 0.51, saved


def test_a_second_profile_shares_the_weights(tmp_path: Path) -> None:
    engine = lowered(tiny("llama", hidden_size=512, intermediate_size=1024, num_hidden_layers=4), "fp16", tmp_path)
    sizes = []
    for profiles in (engine.shapes()[:1], engine.shapes()):
        adapter.build(engine.parse(), tmp_path / "plan", profiles, compute_capabilities=("8.9",))
        sizes.append((tmp_path / "plan").stat().st_size)
    assert sizes[1] - sizes[0] < 5_000_000  # code; the linear weights are 19 MB


def test_a_precision_that_a_gpu_lacks_is_refused_by_name_and_by_tensorrt_itself(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"compute capability 8.0 has no fp8; it takes fp16, bf16, int8, int4") as error:
        find_precision("fp8", ("8.9", "8.0"))
    assert error.value.hint == "choose --precision fp16 (make: PRECISION=fp16)"
    engine = lowered(tiny("llama"), "fp8", tmp_path)
    with pytest.raises(BuildError, match="HW-specific datatypes: fp8"):
        make(engine, tmp_path / "plan", "8.0")
    with pytest.raises(BuildError, match=r"name them|does not run on every GPU"):
        find_precision("fp8", ())
    with pytest.raises(BuildError, match="no precision 'w8a8'"):
        find_precision("w8a8", ())


def test_unknown_gpus_and_those_that_need_another_package_are_refused() -> None:
    with pytest.raises(BuildError, match=r"unknown compute capability '8\.8'"):
        gpus.flavour(("8.8",))
    with pytest.raises(BuildError, match="needs full TensorRT"):
        gpus.flavour(("9.0", "8.9"))
    assert gpus.flavour(("9.0",)) == "tensorrt" and gpus.flavour(()) == RTX
    with pytest.raises(BuildError, match="needs the package tensorrt, which cannot be imported"):
        adapter.load("tensorrt")


def test_attention_without_a_fused_kernel_fails_the_build_and_says_so(tmp_path: Path) -> None:
    engine = lowered(tiny("llama", head_dim=512, num_attention_heads=2), "fp16", tmp_path)
    with pytest.raises(BuildError, match="no fused attention kernel") as error:
        make(engine, tmp_path / "plan", "8.9")
    assert "unfused attention would be slow" in str(error.value.hint)
    assert not (tmp_path / "plan").exists()


def test_a_warning_that_means_a_wrong_engine_is_an_error(tmp_path: Path) -> None:
    engine = lowered(tiny("llama"), "fp16", tmp_path)
    longer = dict.fromkeys(("input_ids", "positions"), (1, 512))  # at most more than a slot holds
    shapes = [Shapes(inputs={n: (a, b, longer.get(n, c)) for n, (a, b, c) in s.inputs.items()}) for s in engine.shapes()[:1]]
    with pytest.raises(BuildError, match="not self-consistent"):
        adapter.build(engine.parse(), tmp_path / "plan", shapes, compute_capabilities=("8.9",))
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize("spoil", [lambda b: b[:-100], lambda b: b"x" * 4096, lambda b: b"x" * 8 + b[8:]])
def test_a_damaged_plan_is_refused(spoil: Any, tmp_path: Path) -> None:
    engine, plan = lowered(tiny("llama"), "fp16", tmp_path), tmp_path / "model.plan"
    make(engine, plan, "8.9")
    plan.write_bytes(spoil(plan.read_bytes()))
    with pytest.raises(BuildError, match=r"model.plan is damaged"):
        adapter.integrity(adapter.load(RTX), plan)


def test_a_graph_that_the_parser_refuses_is_an_error_with_its_reason(tmp_path: Path) -> None:
    engine = lowered(tiny("llama"), "fp16", tmp_path)
    model = onnx.load(str(engine.graph), load_external_data=False)
    node = next(n for n in model.graph.node if n.op_type == "TensorScatter")
    next(a for a in node.attribute if a.name == "mode").s = b"circular"
    onnx.save(model, str(engine.graph))
    with pytest.raises(BuildError, match=r"parser refuses the graph: .*circular"):
        engine.parse()


def test_an_engine_for_weight_streaming_is_built(tmp_path: Path) -> None:
    make(lowered(tiny("llama"), "fp16", tmp_path), tmp_path / "plan", "8.9", weight_streaming=True)
    assert adapter.integrity(adapter.load(RTX), tmp_path / "plan") in ("whole", "loaded")


def capability(name: str) -> dict[str, Any]:
    return {"compute_capability": [name]}


def plan_of(tmp_path: Path, **changes: Any) -> BuildPlan:
    folder = write_folder(tmp_path / "tiny", tiny("llama"), "BF16")
    limits = Limits(max_sequences=4, max_length=100, prefill_chunk=16)
    choices: dict[str, Any] = {"target": "tensorrt", "precision": "fp16", "limits": limits, "options": capability("8.9")}
    return BuildPlan(model=str(folder), **(choices | changes))


def settings(tmp_path: Path, **changes: Any) -> Settings:
    return dataclasses.replace(tiny_build.settings(tmp_path), **changes)


def test_a_build_publishes_engine_report_and_manifest_and_nothing_the_second_time(tmp_path: Path) -> None:
    plan, where = plan_of(tmp_path), settings(tmp_path)
    built = build(plan, where)
    inside = next(built.repository.rglob("engine.json")).parent
    manifest = EngineManifest.load(inside)
    described = TensorRtPlan.of(manifest)
    assert manifest.target == "tensorrt" and manifest.verified == "network"
    assert (described.flavour, described.compute_capabilities, described.capacity) == (RTX, ("8.9",), 112)
    assert {c.dtype for c in manifest.cache} == {"float16"} and {c.window for c in manifest.cache} == {None}
    assert (inside / manifest.engine).stat().st_size == described.plan_bytes
    report = json.loads((inside / engine_report.JSON_NAME).read_text())
    assert report["attention"] == {"fused, mask": 2} and report["memory"]["weights"]["HALF"] > 0
    assert "compute capability 8.9" in (inside / engine_report.TEXT_NAME).read_text()
    assert "VERIFIED IN PART" in (inside / "report.txt").read_text()
    assert not list(built.repository.rglob("*.onnx"))
    assert build(plan, where).unchanged
    assert not build(plan_of(tmp_path, options=capability("12.0")), where).unchanged


def test_a_build_over_its_budget_publishes_nothing(tmp_path: Path) -> None:
    row = PRECISIONS["fp16"]
    strict = dataclasses.replace(row, network=dataclasses.replace(row.network, logits_error=1e-7))
    target = dataclasses.replace(find_target("tensorrt"), precisions={"fp16": strict})
    where, plan = settings(tmp_path), plan_of(tmp_path)
    with pytest.raises(BuildError, match="over its budget and was not published"):
        build(plan, where, target=target)
    assert not plan.repository(where.build_dir).exists()
    assert (plan.folder(where.build_dir) / FAILED / "report.txt").exists()


def test_choices_of_other_targets_are_refused() -> None:
    with pytest.raises(BuildError, match="of target tensorrt, not of cpu"):
        BuildPlan(options=capability("8.9"))
    with pytest.raises(BuildError, match=r"compute capability 8\.0 has no fp8"):  # before anything is fetched
        BuildPlan(target="tensorrt", precision="fp8", options=capability("8.0"))
    with pytest.raises(BuildError, match="target tensorrt has no speculation 'on'; known: off"):
        BuildPlan(target="tensorrt", precision="fp16", speculation="on")
    with pytest.raises(BuildError, match="target tensorrt has no verify 'layers'; known: auto, full, network, none"):
        BuildPlan(target="tensorrt", precision="fp16", verify="layers")
    with pytest.raises(BuildError, match="target tensorrt has no precision 'w8a8'; known: fp16, bf16, int8, int4, fp8"):
        BuildPlan(target="tensorrt", precision="w8a8")
