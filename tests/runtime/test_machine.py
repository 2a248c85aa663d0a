"""What a machine has: asked of its driver, its processor and its packages. Run: pytest tests/runtime/test_machine.py"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy
import pytest

from triune_runtime.machine import Gpu, Machine, Processor, installed_version, this_machine, this_processor
from triune_runtime.targets.cpu import processor

DRIVER = """
int cuDriverGetVersion(int *version) { *version = 12080; return 0; }
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
    assert (found.gpus, found.no_gpu, found.cuda) == (gpus, no_gpu, "12.8")


def test_a_machine_without_a_driver_has_no_gpu_and_the_library_is_named() -> None:
    found = this_machine("libcuda-of-no-version.so")
    assert (found.gpus, found.cuda) == ((), "")
    assert found.no_gpu == "no NVIDIA driver: libcuda-of-no-version.so cannot be loaded"


def test_a_package_that_is_not_installed_has_no_version() -> None:
    assert installed_version("tensorrt_of_no_flavour") is None
    assert installed_version("numpy") == numpy.__version__


@pytest.mark.parametrize(
    "listing", ["processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni\nbugs\t: none\n", "Features\t: fpu avx2 avx512_vnni\n"]
)
def test_instructions_are_read_from_linuxs_listing(tmp_path: Path, listing: str) -> None:
    (tmp_path / "cpuinfo").write_text(listing)
    assert this_processor(tmp_path / "cpuinfo").instructions == {"fpu", "avx2", "avx512_vnni"}
    assert this_processor(tmp_path / "none").instructions == frozenset()


def test_of_several_processors_the_first_is_told(tmp_path: Path) -> None:
    one = "processor\t: {}\nmodel name\t: A: {}\nflags\t\t: {}\nvmx flags\t: vnmi\n\n"
    (tmp_path / "cpuinfo").write_text(one.format(0, "first", "fpu avx2") + one.format(1, "second", "fpu"))
    assert this_processor(tmp_path / "cpuinfo") == Processor(name="A: first", instructions=frozenset({"fpu", "avx2"}))
    assert this_processor(tmp_path / "none").name is None


@pytest.mark.parametrize(("flags", "has"), [("avx512_vnni", True), ("avx_vnni", True), ("avx512f", False), ("", False)])
def test_vnni_is_one_of_two_instructions(monkeypatch: pytest.MonkeyPatch, flags: str, has: bool) -> None:
    monkeypatch.setattr(processor, "this_processor", lambda: Processor(instructions=frozenset({"fpu", *flags.split()})))
    assert processor.has_vnni.__wrapped__() is has


def test_a_machine_of_which_nothing_is_known_has_nothing() -> None:
    assert Machine(gpus=()).version("numpy") is None and not Machine(gpus=()).instructions
