"""Each check of GPUs, passing and failing. Run: pytest tests/server/doctor/test_gpus.py"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from fakes.machine_files import machine
from fakes.nvml import Driver, gpu
from triune_server.doctor import gpus
from triune_server.doctor.context import Context
from triune_server.doctor.finding import Finding, Verdict
from triune_server.doctor.nvml import GpuState

Check = Callable[[Context], Iterable[Finding]]


def look(
    check: Check, folder: Path, *states: GpuState, files: dict[str, str | None] | None = None, **more: Any
) -> list[Finding]:
    return list(check(machine(folder, files, gpus=states, **{"nvml": Driver()} | more)))


@pytest.mark.parametrize("check", gpus.CHECKS)
def test_where_all_is_well_every_check_says_so(check: Check, tmp_path: Path) -> None:
    found = look(check, tmp_path, gpu(0), gpu(1), files={"dev/kmsg": "6,1,1,-;usb 1-1: new device\n"})
    assert found and {one.verdict for one in found} == {Verdict.GOOD} and not any(one.remedy for one in found)


@pytest.mark.parametrize(
    ("check", "change", "verdict", "said", "remedy"),
    [
        (gpus.has_gpus, {"mig": True}, Verdict.POOR, "divided by MIG", "-mig 0"),
        (gpus.has_gpus, {"free_bytes": None}, Verdict.UNKNOWN, "not told", ""),
        (gpus.links, {"peers": ()}, Verdict.POOR, "none between GPUs 0 and 1", "over PCIe"),
        (gpus.links, {"pcie": (5, 8)}, Verdict.POOR, "8 of 16 lanes", "seat the card"),
        (gpus.links, {"pcie": (3, 16)}, Verdict.POOR, "generation 3 of 5", "firmware"),
        (gpus.links, {"pcie": None}, Verdict.UNKNOWN, "does not tell", ""),
        (gpus.memory_errors, {"uncorrected": 3}, Verdict.BAD, "3 errors", "as root: nvidia-smi -i 0 -r"),
        (gpus.memory_errors, {"remap_failed": True}, Verdict.BAD, "failing", "replaced"),
        (gpus.memory_errors, {"remap_pending": True}, Verdict.POOR, "next reset", "as root"),
        (gpus.memory_errors, {"ecc": False}, Verdict.POOR, "off", "-e 1"),
        (gpus.power, {"watts_limit": 400.0}, Verdict.POOR, "400 W, 700 W by default", "-pl 700"),
        (gpus.power, {"slowed": 0x44, "celsius": 91}, Verdict.POOR, "by power limit and heat, by the hardware", "cool"),
        (gpus.power, {"slowed": None}, Verdict.UNKNOWN, "does not tell", ""),
        (gpus.power, {"persistent": False}, Verdict.POOR, "unloaded when nobody", "-pm 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_with_its_remedy(
    check: Check, change: dict[str, object], verdict: Verdict, said: str, remedy: str, tmp_path: Path
) -> None:
    (found,) = [one for one in look(check, tmp_path, gpu(0, **change), gpu(1)) if one.verdict is not Verdict.GOOD]
    assert found.verdict is verdict and said in found.found and remedy in found.remedy


def test_a_link_that_saves_power_at_rest_is_well(tmp_path: Path) -> None:
    (found,) = look(gpus.links, tmp_path, gpu(pcie=(1, 16), busy=0.0))
    assert found.verdict is Verdict.GOOD and "at rest" in found.found


def test_a_gpu_at_the_power_that_it_was_made_for_is_well_and_one_below_it_is_not(tmp_path: Path) -> None:
    assert gpus.clocks(gpu(slowed=0x04)).found.startswith("at its power limit, as under full load")
    assert gpus.clocks(gpu(slowed=0x04)).verdict is Verdict.GOOD
    assert gpus.clocks(gpu(slowed=0x04, watts_limit=400.0)).verdict is Verdict.POOR
    assert gpus.clocks(gpu(clock=None, celsius=None)).found == "not held back"
    assert gpus.clocks(gpu(clock=None, celsius=50)).found == "not held back (50 °C)"


def test_no_gpu_is_bad_only_where_one_is_needed(tmp_path: Path) -> None:
    (without,) = gpus.has_gpus(machine(tmp_path))
    (needed,) = gpus.has_gpus(machine(tmp_path, target="cuda"))
    assert (without.verdict, needed.verdict) == (Verdict.GOOD, Verdict.BAD)
    assert "none is here" in needed.found and "driver" in needed.remedy


def test_a_gpu_that_the_driver_does_not_reach_is_bad(tmp_path: Path) -> None:
    (lost, other) = look(gpus.has_gpus, tmp_path, gpu(), nvml=Driver(1, 3))
    assert lost.verdict is Verdict.BAD and "number 1, 3" in lost.found and "as root" in lost.remedy
    assert other.verdict is Verdict.GOOD
    (lost,) = look(gpus.has_gpus, tmp_path, nvml=Driver(0))
    assert lost.verdict is Verdict.BAD


def test_a_driver_without_gpus_is_bad_only_where_one_is_needed(tmp_path: Path) -> None:
    for target, verdict in (("cpu", Verdict.UNKNOWN), ("cuda", Verdict.BAD)):
        (found,) = look(gpus.has_gpus, tmp_path, target=target)
        assert found.verdict is verdict and "--gpus all" in found.remedy


def test_gpus_that_engines_can_use_and_nvml_cannot_tell_of_are_not_missing(tmp_path: Path) -> None:
    (found,) = look(gpus.has_gpus, tmp_path, gpu(), nvml="no NVIDIA driver: none is here", target="cuda")
    assert found.verdict is Verdict.UNKNOWN and "NVIDIA H200; nothing more" in found.found and "utility" in found.remedy


def test_gpus_that_this_process_does_not_see_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = look(gpus.has_gpus, tmp_path, gpu(), no_gpu="the driver sees no GPU, CUDA error 100")
    assert [one.verdict for one in found] == [Verdict.GOOD, Verdict.BAD]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    context = machine(tmp_path, gpus=(gpu(0), gpu(1)), nvml=Driver())
    context.__dict__["gpus"] = (gpu(0), gpu(1), gpu(2))
    assert "2 of 3 (CUDA_VISIBLE_DEVICES=1)" in list(gpus.has_gpus(context))[-1].found


@pytest.mark.parametrize(
    ("log", "verdict"),
    [
        ("NVRM: Xid (PCI:0000:1b:00): 79, pid=1, GPU has fallen off the bus.\n", Verdict.BAD),
        ("NVRM: Xid (PCI:0000:1b:00): 31, pid=1, MMU Fault\n", Verdict.POOR),
        ("NVRM: Xid (PCI:0000:1b:00): 63, Row Remapper: New row marked for remapping\n", Verdict.POOR),
        (None, Verdict.UNKNOWN),
    ],
)
def test_xid_errors_are_found_in_the_kernels_log(log: str | None, verdict: Verdict, tmp_path: Path) -> None:
    (found,) = look(gpus.xids, tmp_path, gpu(), files={"var/log/kern.log": log})
    assert found.verdict is verdict and found.remedy
    if log is None:
        assert "as root: dmesg" in found.remedy
    else:
        assert "0000:1b:00" in found.found
