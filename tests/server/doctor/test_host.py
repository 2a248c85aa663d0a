"""Each check of the processor, memory and limits, passing and failing. Run: pytest tests/server/doctor/test_host.py"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from fakes.machine_files import FULL, machine
from fakes.nvml import gpu
from triune_server.doctor import host, limits
from triune_server.doctor.context import Context
from triune_server.doctor.finding import Finding, Verdict

Check = Callable[[Context], Iterable[Finding]]
POOR = Verdict.POOR
SWAPPING = "MemTotal: 67108864 kB\nMemAvailable: 60000000 kB\nSwapTotal: 1000000 kB\nSwapFree: 1 kB\n"
NO_QUOTA = "max 100000\n"
TWO_NODES = {
    "sys/devices/system/node/online": "0-1\n",
    "sys/devices/system/node/node0/cpulist": "0-1\n",
    "sys/devices/system/node/node1/cpulist": "2-3\n",
    "proc/self/status": "Cpus_allowed_list:\t0-3\nMems_allowed_list:\t0-1\n",
}


@pytest.mark.parametrize("check", host.CHECKS)
def test_where_all_is_well_every_check_says_so(check: Check, tmp_path: Path) -> None:
    found = list(check(machine(tmp_path, {"sys/fs/cgroup/cpu.max": NO_QUOTA, "sys/fs/cgroup/memory.max": "max\n"})))
    assert found and {one.verdict for one in found} == {Verdict.GOOD} and not any(one.remedy for one in found)


@pytest.mark.parametrize(
    ("check", "files", "more", "verdict", "said", "remedy"),
    [
        (host.instructions, {}, {"instructions": FULL - {"avx512_vnni"}}, POOR, "w8a8 is fast with VNNI", "PRECISION=int8"),
        (host.instructions, {}, {"instructions": frozenset({"sse2"})}, Verdict.BAD, "AVX2 no", "AVX2"),
        (host.instructions, {}, {"instructions": frozenset()}, Verdict.UNKNOWN, "does not tell", ""),
        (host.cores, {}, {"cores": 1}, POOR, "1 of 4, Good CPU", "at least 2"),
        (host.cores, {"sys/fs/cgroup/cpu.max": "250000 100000\n"}, {}, POOR, "the cgroup allows 2.5", "cpuset"),
        (host.cores, {"proc/self/cgroup": "4:cpu,cpuacct:/a/b\n", "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "200000\n",
                      "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"}, {}, POOR, "allows 2", "cpuset"),
        (host.cores, {"sys/fs/cgroup/cpu.stat": "nr_periods 100\nnr_throttled 40\n"}, {}, POOR, "40% of its periods", "time"),
        (host.cores, {"proc/loadavg": "9.00 8.00 7.00 9/100 1\n"}, {}, POOR, "9.0 threads want 4 cores", "end other programs"),
        (host.numa, TWO_NODES, {}, POOR, "2 nodes; this process may use 2", "numactl --cpunodebind"),
        (host.numa, TWO_NODES | {"sys/bus/pci/devices/0000:1b:00.0/numa_node": "1\n"}, {"gpus": (gpu(),), "target": "cuda"},
         POOR, "the GPUs are at node 1", "--cpunodebind=1"),
        (host.frequency, {"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
                          "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver": "acpi-cpufreq\n"}, {}, POOR,
         "powersave", "as root"),
        (host.memory, {"proc/meminfo": "MemTotal: 4000000 kB\nMemAvailable: 900000 kB\n"}, {}, POOR, "0.9 of 4.1 GB", "more"),
        (host.memory, {"sys/fs/cgroup/memory.max": "1000000000\n", "sys/fs/cgroup/memory.current": "600000000\n"}, {}, POOR,
         "a cgroup allows 1.0 GB, 0.6 GB are used", "docker run --memory"),
        (host.memory, {"proc/meminfo": SWAPPING}, {},
         POOR, "lie on the disk", "slow"),
        (host.memory, {"proc/meminfo": None}, {}, Verdict.UNKNOWN, "does not tell", ""),
        (host.huge_pages, {"sys/kernel/mm/transparent_hugepage/enabled": "always madvise [never]\n"}, {}, POOR, "TLB", "root"),
        (host.huge_pages, {"sys/kernel/mm/transparent_hugepage/enabled": None}, {}, Verdict.UNKNOWN, "does not tell", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_with_its_remedy(
    check: Check, files: dict[str, str | None], more: dict[str, Any], verdict: Verdict, said: str, remedy: str, tmp_path: Path
) -> None:
    (found,) = [one for one in check(machine(tmp_path, files, **more)) if one.verdict is not Verdict.GOOD]
    assert found.verdict is verdict and said in found.found and remedy in found.remedy


def test_a_server_that_is_bound_to_one_node_is_well(tmp_path: Path) -> None:
    bound = TWO_NODES | {"proc/self/status": "Cpus_allowed_list:\t2-3\nMems_allowed_list:\t0-1\n"}
    (found,) = host.numa(machine(tmp_path, bound))
    assert found.verdict is Verdict.GOOD


def test_nothing_is_said_of_a_frequency_that_is_not_told_nor_of_the_load_that_a_server_makes(tmp_path: Path) -> None:
    files = {"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": None, "proc/loadavg": "9.00 8.00 7.00 9/100 1\n"}
    context = machine(tmp_path, files)
    context.__dict__["running"] = object()
    assert not list(host.frequency(context)) and [one.subject for one in host.cores(context)] == ["cores"]


def test_files_that_a_cgroup_counts_are_free_memory(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/memory.max": "8000000000\n", "sys/fs/cgroup/memory.current": "7000000000\n",
             "sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 6000000000\n"}  # fmt: skip
    assert machine(tmp_path, files).memory.free == 7_000_000_000


@pytest.mark.parametrize(("most", "verdict"), [(None, Verdict.GOOD), (65_536, Verdict.GOOD), (1024, POOR), (100, Verdict.BAD)])
def test_limits_of_files_and_processes_are_judged(most: int | None, verdict: Verdict) -> None:
    assert limits.files_limit(most).verdict is verdict
    assert limits.processes_limit(65_536, 1_000 if most == 1024 else most).verdict is verdict
    assert bool(limits.files_limit(most).remedy) == (verdict is not Verdict.GOOD)


def test_this_process_own_limits_are_read(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = (
        max(int(file.name) for file in Path("/proc/self/fd").iterdir()) + 20
    )  # those that other tests hold, and the check's own
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        found = {one.subject: one.found for one in limits.ulimits(machine(tmp_path))}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert f"at most {few:,};" in found["open files"]


def test_limits_are_those_of_a_server_that_runs(tmp_path: Path) -> None:
    limited = "import resource as r, sys; r.setrlimit(r.RLIMIT_NOFILE, (200, 200)); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", limited], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None and server.stdout.readline()
        context = machine(tmp_path)
        context.__dict__["running"] = type("Running", (), {"pid": server.pid})()
        found = {one.subject: one.found for one in limits.ulimits(context)}
        server.communicate()
    assert "at most 200;" in found["open files"]


def test_locked_memory_matters_for_gpus_and_addresses_always() -> None:
    assert not list(limits.other_limits(65_536, None, wants_gpu=False))
    (locked,) = limits.other_limits(65_536, None, wants_gpu=True)
    (space,) = limits.other_limits(None, 4 << 30, wants_gpu=False)
    assert (locked.verdict, space.verdict) == (POOR, Verdict.BAD) and "unlimited" in space.remedy


def test_shared_memory_that_is_too_small_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = machine(tmp_path, {"dev/shm/x": ""})
    (found,) = limits.shared_memory(context)
    assert found.verdict is Verdict.GOOD
    monkeypatch.setattr("shutil.disk_usage", lambda where: type("Usage", (), {"total": 8 << 20})())
    (found,) = limits.shared_memory(context)
    assert found.verdict is Verdict.BAD and "8 MB" in found.found and found.remedy


def test_the_cores_are_those_that_this_process_may_use() -> None:
    assert Context().cores == len(os.sched_getaffinity(0))
