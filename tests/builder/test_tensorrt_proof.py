"""A TensorRT engine is proved by running it where its GPU is, else by its parsed network; the GPU here is a stand-in.

Run: pytest tests/builder/test_tensorrt_proof.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fakes import tiny_build
from fakes.tensorrt_engines import tiny
from fakes.tiny_folders import write_folder
from support.gpu_rehearsal import Arrays, rehearse
from triune_builder.errors import BuildError
from triune_builder.pipeline import build
from triune_builder.plan import BuildPlan
from triune_builder.verify.report import BuildReport
from triune_runtime.machine import Gpu, Machine
from triune_runtime.manifest import EngineManifest, Limits
from triune_runtime.targets.tensorrt import preflight

LIMITS = Limits(max_sequences=4, max_length=100, prefill_chunk=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a checkpoint; what one test compiles, the others find."""
    root = tmp_path_factory.mktemp("build")
    write_folder(root / "tiny", tiny("llama"), "BF16")
    return root


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a test pretends otherwise."""
    monkeypatch.setattr(preflight, "this_machine", lambda: Machine(gpus=(), no_gpu="none here"))


def proved(folder: Path, verify: str = "auto") -> tuple[EngineManifest, BuildReport]:
    options = {"compute_capability": ["8.9"]}
    plan = BuildPlan(model=str(folder / "tiny"), target="tensorrt", verify=verify, limits=LIMITS, options=options)
    inside = next(build(plan, tiny_build.settings(folder), force=False).repository.rglob("engine.json")).parent
    return EngineManifest.load(inside), BuildReport.read(inside)


def ran(report: BuildReport, name: str) -> bool:
    return any(stage.name == name and not stage.reused for stage in report.stages)


def test_without_its_gpu_the_network_is_proved_and_with_it_the_engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, report = proved(folder)
    assert manifest.verified == "network"
    assert report.verification is not None and "the engine itself was not run" in report.verification.left_out
    (folder / "template" / "tokenize" / "1" / "model.py").write_text("# other\n")  # else nothing is to be done
    rehearse(monkeypatch.setattr)
    manifest, report = proved(folder)
    found = report.verification
    assert manifest.verified == "full" and ran(report, "verify") and not ran(report, "compile")
    assert found is not None and found.left_out == "" and found.repeat_error is not None and found.best_errors == 0
    assert report.budget.batch_error and report.budget.logits_error is None  # of engines on a GPU


def test_what_one_gpu_showed_is_not_taken_for_another(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, (gpu, again) in enumerate(
        [(Gpu("one", "8.9"), True), (Gpu("one", "8.9"), False), (Gpu("another", "8.9"), True)]
    ):
        (folder / "template" / "tokenize" / "1" / "model.py").write_text(f"# {number}\n")
        rehearse(monkeypatch.setattr, gpu)
        manifest, report = proved(folder)
        assert manifest.verified == "full" and ran(report, "verify") == again, gpu


@pytest.mark.parametrize("gpu", [Gpu("A100", "8.0"), Gpu("H100", "9.0")])
def test_a_gpu_that_the_engine_is_not_for_proves_its_network(folder: Path, monkeypatch: pytest.MonkeyPatch, gpu: Gpu) -> None:
    (folder / "template" / "tokenize" / "1" / "model.py").write_text(f"# {gpu}\n")
    rehearse(monkeypatch.setattr, gpu)
    manifest, _ = proved(folder)
    assert manifest.verified == "network"


def test_an_engine_that_computes_something_else_on_the_gpu_is_not_published(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(found: Arrays) -> Arrays:
        return {name: array[..., ::-1] if name == "logits" else np.asarray(array) for name, array in found.items()}

    rehearse(monkeypatch.setattr, Gpu("a faulty one", "8.9"), spoiled)
    with pytest.raises(BuildError, match="over its budget and was not published"):
        proved(folder, verify="full")


def test_the_proof_can_be_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        BuildError, match=r"--verify full runs the engine, which this machine cannot: no supported GPU"
    ) as error:
        proved(folder, verify="full")
    assert error.value.hint == "choose --verify network (make: VERIFY=network), or auto: the parsed network is computed then"
    rehearse(monkeypatch.setattr)
    assert proved(folder, verify="network")[0].verified == "network"
    assert proved(folder, verify="full")[0].verified == "full"
