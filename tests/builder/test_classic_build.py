"""A build for TensorRT 8.6 to 10: in a Python of its own, proved by running, published; over a stand-in for that Python.

Run: pytest tests/builder/test_classic_build.py
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import classic_python, tiny_build
from fakes.tensorrt_engines import tiny
from fakes.tiny_folders import write_folder
from support.model_steps import STEPS, assert_computes, by_reference
from triune_builder.errors import BuildError
from triune_builder.inputs import Settings
from triune_builder.pipeline import build
from triune_builder.plan import BuildPlan
from triune_builder.targets.tensorrt import engine_report, gpus
from triune_runtime.errors import DeviceLost, ManifestError
from triune_runtime.machine import Gpu, Machine
from triune_runtime.manifest import EngineManifest, Limits
from triune_runtime.runner import Want, Work
from triune_runtime.targets import make_runner
from triune_runtime.targets.tensorrt import elsewhere, preflight
from triune_runtime.targets.tensorrt.plan import TensorRtPlan

LIMITS = Limits(max_sequences=3, max_length=100, prefill_chunk=16)
HOPPER = Machine(gpus=(Gpu("a rehearsal", "9.0"),))


@pytest.fixture(autouse=True)
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Python that the environment names has TensorRT 8.6, and the machine a GPU of compute capability 9.0."""
    path = classic_python.shim(tmp_path)
    monkeypatch.setenv(elsewhere.SWITCH, str(path))
    monkeypatch.setattr(preflight, "this_machine", lambda library="": HOPPER)
    elsewhere.version_of.cache_clear()
    return path


def plan_of(tmp_path: Path, **changes: Any) -> BuildPlan:
    folder = write_folder(tmp_path / "tiny", tiny("llama"), "F32")
    choices: dict[str, Any] = {
        "target": "tensorrt", "precision": "fp16", "limits": LIMITS, "options": {"compute_capability": ["9.0"]},
    }  # fmt: skip
    return BuildPlan(model=str(folder), **(choices | changes))


def settings(tmp_path: Path) -> Settings:
    return tiny_build.settings(tmp_path)


def published(tmp_path: Path, **changes: Any) -> tuple[EngineManifest, Path]:
    """What a build publishes, with the graphs beside it, which its stand-in for an engine computes."""
    built = build(plan_of(tmp_path, **changes), settings(tmp_path))
    inside = next(built.repository.rglob("engine.json")).parent
    return EngineManifest.load(inside), inside


def test_the_version_of_the_other_python_decides_the_form(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpus.classic_version(("9.0",)) == "8.6.0"
    assert gpus.classic_version(("8.9",)) is None and gpus.classic_version(()) is None
    for version, form in (("8.5.3", None), ("10.13.3", "10.13.3"), ("11.0.0", None), (None, None)):
        monkeypatch.setattr(gpus, "version_of", lambda python, version=version: version)
        assert gpus.classic_version(("9.0",)) == form
    monkeypatch.delenv(elsewhere.SWITCH)
    monkeypatch.setattr(gpus, "installed_version", lambda module: "10.0.1")
    assert gpus.classic_version(("9.0",)) == "10.0.1"


def test_a_build_is_proved_by_running_every_engine_and_published(tmp_path: Path) -> None:
    manifest, inside = published(tmp_path, verify="full")
    plan = TensorRtPlan.of(manifest)
    assert manifest.verified == "full"
    assert (plan.flavour, plan.version, plan.fixed_sizes, plan.capacity) == ("tensorrt", "8.6.0", True, 112)
    assert [(p.name, p.batch[0], p.tokens[0]) for p in plan.profiles] == [
        ("prefill", 1, 16), ("decode", 1, 1), ("decode", 3, 1),
    ]  # fmt: skip
    assert [file.name for file in plan.plans] == ["prefill.16.plan", "decode.1.plan", "decode.3.plan"]
    assert all((inside / file.name).stat().st_size == file.bytes for file in (*plan.plans, *plan.weights))
    assert {file.name for file in plan.weights} == {"model.data", "weights.json"}
    report = json.loads((inside / engine_report.JSON_NAME).read_text())
    assert [engine["problem"] for engine in report["engines"]] == ["", "", ""]
    assert "prefill of 16 tokens" in (inside / engine_report.TEXT_NAME).read_text()
    assert not list(inside.rglob("*.onnx"))


@pytest.mark.parametrize("which", ["all", "3"])  # every engine, or the one for batches of three alone
def test_engines_that_run_wrongly_are_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    monkeypatch.setenv(classic_python.SPOILS, which)
    plan = plan_of(tmp_path, verify="full")
    with pytest.raises(BuildError, match="over its budget and was not published"):
        build(plan, settings(tmp_path))
    assert not plan.repository(settings(tmp_path).build_dir).exists()


def test_the_graphs_can_be_proved_without_the_gpu(tmp_path: Path) -> None:
    manifest, _ = published(tmp_path, verify="network")
    assert manifest.verified == "network"


def test_prompts_are_read_by_what_could_be_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(classic_python.FAILS, "prefill.16.plan")
    manifest, inside = published(tmp_path, verify="full")
    plan = TensorRtPlan.of(manifest)
    assert [(p.name, p.tokens[0], file.name) for p, file in zip(plan.profiles, plan.plans, strict=True)] == [
        ("prefill", 1, "decode.1.plan"), ("decode", 1, "decode.1.plan"), ("decode", 1, "decode.3.plan"),
    ]  # fmt: skip
    assert "not built: TensorRT cannot build the engine; Could not find any" in (inside / engine_report.TEXT_NAME).read_text()


def test_a_decode_that_cannot_be_built_ends_the_build_with_tensorrts_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(classic_python.FAILS, "decode.3.plan")
    with pytest.raises(BuildError, match=r"engine for a decode of 3 sequences: .*Could not find any implementation"):
        build(plan_of(tmp_path), settings(tmp_path))


def test_another_precision_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"TensorRT 8\.6\.0 takes no int4") as error:
        build(plan_of(tmp_path, precision="int4"), settings(tmp_path))
    assert "install TensorRT 11" in str(error.value.hint)


def test_the_published_engine_runs_in_the_other_process(tmp_path: Path) -> None:
    """Logits and best tokens as asked for, a copied slot, an end; against the float reference."""
    plan = plan_of(tmp_path, verify="none")
    published_manifest, inside = published(tmp_path, verify="none")
    graphs = next(plan.folder(settings(tmp_path).build_dir).parents[1].rglob("prefill.onnx")).parent
    for kind in ("prefill", "decode"):
        (inside / f"{kind}.onnx").write_bytes((graphs / f"{kind}.onnx").read_bytes())
    runner = make_runner(published_manifest, inside)
    try:
        assert_computes(runner, by_reference(tiny("llama")), 4e-2)
        work = STEPS[2]
        full = runner.run_rows(work)
        some = runner.run_rows([item._replace(wants=Want.LOGITS if item.slot else Want.TOKEN) for item in work])
        assert full.best is not None and some.best is not None
        assert np.array_equal(full.best.tokens, full.logits.argmax(1)) and np.array_equal(full.best.tokens, some.best.tokens)
        assert np.array_equal(full.logits[1:], some.logits[1:])
    finally:
        runner.close()
    with pytest.raises(DeviceLost, match="has ended"):
        runner.run([Work(0, 0, (1,))])


def test_what_the_other_python_lacks_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: Path) -> None:
    manifest, inside = published(tmp_path, verify="none")
    other = dataclasses.replace(manifest, plan=manifest.plan | {"version": "8.6.1"})
    with pytest.raises(ManifestError, match=r"was built with TensorRT 8\.6\.1 and loads in no other version, but 8\.6\.0"):
        make_runner(other, inside)
    (inside / "decode.3.plan").write_bytes(b"other")
    with pytest.raises(ManifestError, match=r"decode\.3\.plan is damaged"):
        make_runner(manifest, inside)
    python.unlink()
    elsewhere.version_of.cache_clear()
    with pytest.raises(ManifestError, match="is not installed here"):
        preflight.check_machine("e", TensorRtPlan.of(manifest))
