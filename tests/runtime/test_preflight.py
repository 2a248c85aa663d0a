"""A TensorRT engine on a machine that cannot run it is refused in one sentence. Run: pytest tests/runtime/test_preflight.py"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.host_engines import as_tensorrt
from triune_runtime.errors import ManifestError
from triune_runtime.manifest import CacheTensor, EngineManifest
from triune_runtime.targets import make_runner
from triune_runtime.targets.tensorrt import preflight
from triune_runtime.targets.tensorrt.preflight import Gpu, Machine, check_gpu, check_runnable, this_machine

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
    check_runnable(dataclasses.replace(manifest(), target="cpu", tensorrt=None), tmp_path, machine(gpus=()))


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
        check_runnable(dataclasses.replace(manifest(), tensorrt=None), folder, GOOD)
    with pytest.raises(ManifestError, match=r"names the package 'tensorflow'; known: tensorrt, tensorrt_rtx"):
        check_runnable(manifest(flavour="tensorflow"), folder, GOOD)


@given(
    known=st.lists(st.sampled_from(["7.5", "8.0", "8.9", "10.0", "12.0"]), unique=True),
    found=st.sampled_from(["7.5", "8.0", "8.9", "10.0", "12.0", "12.1"]),
)
def test_a_gpu_is_accepted_if_it_is_named_or_none_is_and_it_is_new_enough(known: list[str], found: str) -> None:
    plan = manifest(compute_capabilities=tuple(known)).tensorrt
    assert plan is not None
    fits = found in known if known else float(found) >= 8.0
    fits = fits and found != "10.0"  # the engine is TensorRT-RTX's
    try:
        check_gpu("model.plan", plan, machine(gpus=(Gpu("one", found), Gpu("another", "8.9"))))
    except ManifestError:
        assert not fits
    else:
        assert fits


DRIVER = """
int cuInit(unsigned flags) { return INIT; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int number) { *device = 40 + number; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    const char *text = device == 40 ? "RTX 6000" : "other"; int i = 0;
    for (; text[i] && i < size - 1; i++) name[i] = text[i];
    name[i] = 0; return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 12 - (device - 40) : attribute == 76 ? 1 : -1; return 0;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize(
    ("init", "count", "gpus", "no_gpu"),
    [
        (0, 2, (Gpu("RTX 6000", "12.1"), Gpu("other", "11.1")), ""),
        (100, 1, (), "the driver sees no GPU, CUDA error 100"),
        (0, 0, (), "the driver sees no GPU, CUDA error 100"),
        (803, 1, (), "its driver does not fit its GPU, CUDA error 803"),
    ],
)
def test_the_driver_is_asked_for_gpus(tmp_path: Path, init: int, count: int, gpus: tuple[Gpu, ...], no_gpu: str) -> None:
    source, library = tmp_path / "driver.c", tmp_path / "libcuda.so"
    source.write_text(DRIVER, "utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", f"-DINIT={init}", f"-DCOUNT={count}", source, "-o", library], check=True)
    found = this_machine(str(library))
    assert (found.gpus, found.no_gpu) == (gpus, no_gpu)


def test_a_machine_without_a_driver_has_no_gpu_and_the_library_is_named() -> None:
    found = this_machine("libcuda-of-no-version.so")
    assert (found.gpus, found.no_gpu) == ((), "no NVIDIA driver: libcuda-of-no-version.so cannot be loaded")


def test_a_package_that_is_not_installed_has_no_version() -> None:
    assert preflight.installed_version("tensorrt_of_no_flavour") is None


def test_make_runner_refuses_before_it_imports_a_gpu_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "this_machine", lambda: machine(gpus=(), no_gpu="said so"))
    monkeypatch.setitem(__import__("sys").modules, "cuda.bindings", None)
    with pytest.raises(ManifestError, match=r"no supported GPU: .*\(said so\)"):
        make_runner(manifest(), folder)
