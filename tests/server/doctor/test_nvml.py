"""NVIDIA's library is asked, and what it does not know is not known. Run: pytest tests/server/doctor/test_nvml.py"""

from __future__ import annotations

import dataclasses
import shutil

import pytest

from fakes.nvml import FakeNvml, gpu
from triune_server.doctor.nvml import GpuState, Nvml, open_nvml

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> FakeNvml:
    return FakeNvml(tmp_path_factory.mktemp("nvml"))


def opened(library: FakeNvml, **numbers: int) -> Nvml:
    library.set(**numbers)
    nvml = open_nvml(str(library.path))
    assert isinstance(nvml, Nvml)
    return nvml


def test_everything_of_a_gpu_is_read(library: FakeNvml) -> None:
    nvml = opened(library)
    assert nvml.driver == "580.95.05"
    assert nvml.gpus() == (gpu(0, peers=(1,)), gpu(1, peers=(0,)))


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({"generation": 1, "width": 8}, {"pcie": (1, 8)}),
        ({"links": 4, "apart": 5}, {"links": 4, "peers": ()}),
        ({"ecc": 0}, {"ecc": False}),
        ({"ecc": -1}, {"ecc": None}),
        ({"uncorrected": 1 << 33}, {"uncorrected": 1 << 33}),
        ({"pending": 1}, {"remap_pending": True}),
        ({"failed": 1}, {"remap_failed": True}),
        ({"watts_limit": 400_000}, {"watts_limit": 400.0}),
        ({"slowed": 0x48}, {"slowed": 0x48}),
        ({"clock": 345}, {"clock": 345}),
        ({"mig": 1}, {"mig": True}),
        ({"persistent": 0}, {"persistent": False}),
        ({"processes": 2}, {"processes": frozenset({4242, 4243})}),
    ],
)
def test_what_a_gpu_says_otherwise_is_read(library: FakeNvml, numbers: dict[str, int], expected: dict[str, object]) -> None:
    (found,) = opened(library, count=1, **numbers).gpus()
    assert found == dataclasses.replace(gpu(peers=()), **expected)  # type: ignore[arg-type]


def test_a_gpu_that_is_not_reached_is_told_from_one_that_is_not_for_this_user(library: FakeNvml) -> None:
    for code, lost in ((0, ()), (15, (1,)), (4, ())):  # NVML_ERROR_GPU_IS_LOST, NVML_ERROR_NO_PERMISSION
        nvml = opened(library, second=code)
        assert nvml.lost() == lost and [one.index for one in nvml.gpus()] == ([0, 1] if code == 0 else [0])


def test_what_a_driver_does_not_know_is_not_known(library: FakeNvml) -> None:
    (found,) = opened(library, count=1, knows=0).gpus()
    assert found == GpuState(index=0, name="GPU 0")


def test_a_driver_that_is_not_there_or_does_not_answer_is_said(library: FakeNvml) -> None:
    assert open_nvml("libnvidia-ml-of-no-version.so") == ("no NVIDIA driver: libnvidia-ml-of-no-version.so cannot be loaded")
    library.set(init=999)
    assert open_nvml(str(library.path)) == "the driver does not answer, NVML error 999"
