"""A TensorRT engine on a machine that cannot run it is refused in one sentence. Run: pytest tests/runtime/test_preflight.py"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.host_engines import as_tensorrt
from triune_runtime.errors import ManifestError
from triune_runtime.machine import Gpu, Machine
from triune_runtime.manifest import CacheTensor, EngineManifest
from triune_runtime.targets import check_runnable, make_runner
from triune_runtime.targets.tensorrt import preflight
from triune_runtime.targets.tensorrt.plan import TensorRtPlan
from triune_runtime.targets.tensorrt.preflight import check_gpu

PLAN = b"a plan" * 50
GOOD = Machine(gpus=(Gpu("RTX 4090", "8.9"),), version={"tensorrt_rtx": "1.7.1.116"}.get)


def manifest(**changes: Any) -> EngineManifest:
    plain = EngineManifest(
        model="tiny", architecture="llama", target="cpu", precision="fp16", engine="model.plan", vocab_size=7,
        cache=(CacheTensor(name="0.key", heads=2, dim=8, dtype="float16"),), stop_token_ids=(1,),
    )  # fmt: skip
    return as_tensorrt(plain, **({"plan_bytes": len(PLAN), "plan_sha256": hashlib.sha256(PLAN).hexdigest()} | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.plan").write_bytes(PLAN)
    return tmp_path


def machine(**changes: Any) -> Machine:
    return dataclasses.replace(GOOD, **changes)


def test_a_machine_that_fits_is_accepted(folder: Path) -> None:
    check_runnable(manifest(), folder, GOOD)


def test_an_engine_for_the_cpu_asks_for_nothing(tmp_path: Path) -> None:
    check_runnable(dataclasses.replace(manifest(), target="cpu", plan={}), tmp_path, machine(gpus=()))


@pytest.mark.parametrize(
    ("found", "message", "remedy"),
    [
        (machine(gpus=(), no_gpu="no NVIDIA driver: libcuda.so.1 cannot be loaded"),
         "no supported GPU: model.plan needs an NVIDIA GPU of compute capability 8.9, and this machine has none that can be "
         "used (no NVIDIA driver: libcuda.so.1 cannot be loaded)",
         "start it on a machine with such a GPU, or build for the CPU: make engine TARGET=cpu"),
        (machine(gpus=(Gpu("A100", "8.0"),)),
         "no supported GPU: model.plan needs compute capability 8.9, this machine's A100 has 8.0",
         "build for it: triune build --target tensorrt --compute-capability 8.0"),
        (machine(gpus=(Gpu("H100", "9.0"),)),
         "no supported GPU: model.plan runs with TensorRT-RTX, which has no support for this machine's H100 "
         "(compute capability 9.0)",
         "install full TensorRT (pip install tensorrt) on such a machine and build there: "
         "triune build --target tensorrt --compute-capability 9.0"),
        (machine(version=lambda flavour: None),
         "model.plan needs TensorRT-RTX 1.7.1.116, which is not installed here (or its libraries do not load)",
         "install it: pip install tensorrt_rtx==1.7.1.116"),
        (machine(version=lambda flavour: "1.8.0.5"),
         "model.plan was built with TensorRT-RTX 1.7.1.116 and loads in no other version, but 1.8.0.5 is installed",
         "install that version: pip install tensorrt_rtx==1.7.1.116; or build the engine again here"),
    ],
)  # fmt: skip
def test_a_machine_that_does_not_fit_is_told_what_is_needed(folder: Path, found: Machine, message: str, remedy: str) -> None:
    with pytest.raises(ManifestError) as error:
        check_runnable(manifest(), folder, found)
    assert (error.value.args[0], error.value.hint) == (message, remedy)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda plan: plan.unlink(), "model.plan cannot be read: No such file or directory"),
        (lambda plan: plan.write_bytes(PLAN[:-1]), "model.plan is damaged: it has 299 bytes, engine.json says 300"),
        (lambda plan: plan.write_bytes(b"b" + PLAN[1:]), "model.plan is damaged: its SHA-256 is "),
    ],
)
def test_a_damaged_plan_is_told_before_the_machine_is_looked_at(
    folder: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(folder / "model.plan")
    with pytest.raises(ManifestError) as error:
        check_runnable(manifest(), folder, machine(gpus=()))
    assert message in error.value.args[0]
    assert error.value.hint == "build the engine again: make engine TARGET=tensorrt"


def test_a_manifest_without_its_part_or_of_an_unknown_package_is_refused(folder: Path) -> None:
    with pytest.raises(ManifestError, match="says nothing of TensorRT"):
        check_runnable(dataclasses.replace(manifest(), plan={}), folder, GOOD)
    with pytest.raises(ManifestError, match=r"names the package 'tensorflow'; known: tensorrt, tensorrt_rtx"):
        check_runnable(manifest(flavour="tensorflow"), folder, GOOD)


@given(
    known=st.lists(st.sampled_from(["7.5", "8.0", "8.9", "10.0", "12.0"]), unique=True),
    found=st.sampled_from(["7.5", "8.0", "8.9", "10.0", "12.0", "12.1"]),
)
def test_a_gpu_is_accepted_if_it_is_named_or_none_is_and_it_is_new_enough(known: list[str], found: str) -> None:
    plan = TensorRtPlan.of(manifest(compute_capabilities=tuple(known)))
    fits = found in known if known else float(found) >= 8.0
    fits = fits and found != "10.0"  # the engine is TensorRT-RTX's
    try:
        check_gpu("model.plan", plan, machine(gpus=(Gpu("one", found), Gpu("another", "8.9"))))
    except ManifestError:
        assert not fits
    else:
        assert fits


def test_a_package_installed_without_the_one_that_only_names_it_counts(folder: Path) -> None:
    check_runnable(manifest(), folder, machine(version={"tensorrt_rtx_bindings": "1.7.1.116"}.get))


def test_make_runner_refuses_before_it_imports_a_gpu_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "this_machine", lambda: machine(gpus=(), no_gpu="said so"))
    monkeypatch.setitem(__import__("sys").modules, "cuda.bindings", None)
    with pytest.raises(ManifestError, match=r"no supported GPU: .*\(said so\)"):
        make_runner(manifest(), folder)
