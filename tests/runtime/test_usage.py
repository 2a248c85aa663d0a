"""What the process takes of the machine, as metrics say it. Run: pytest tests/runtime/test_usage.py"""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from triune_runtime.kv.store import KvUsage
from triune_runtime.metrics import FAMILIES, FOLDERS, Disk, Metrics, Snapshot, Usage
from triune_runtime.serving.usage import folders, this_process


def test_memory_and_start_are_what_other_tools_say() -> None:
    found, said = this_process({}), psutil.Process()
    assert found.started == pytest.approx(said.create_time(), abs=1.5)  # the kernel tells the boot in whole seconds
    assert found.resident_bytes == pytest.approx(said.memory_info().rss, rel=0.1)


def test_a_process_may_have_any_name(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/statm").write_text("9 2 1 1 0 1 0")
    (tmp_path / "self/stat").write_text(f"7 (a) b) S {' '.join(['0'] * 18)} {5 * os.sysconf('SC_CLK_TCK')} 0")
    (tmp_path / "stat").write_text("cpu 1 2\nbtime 1000\n")
    assert this_process({}, tmp_path) == Usage(started=1005.0, resident_bytes=2 * os.sysconf("SC_PAGE_SIZE"), disks={})


def test_disks_are_told_by_folder_and_missing_ones_left_out(tmp_path: Path) -> None:
    found = this_process({"engine": tmp_path, "shm": tmp_path / "missing"}).disks
    assert list(found) == ["engine"]
    assert found["engine"].size_bytes == psutil.disk_usage(str(tmp_path)).total
    assert 0 < found["engine"].free_bytes <= found["engine"].size_bytes
    assert set(folders(tmp_path)) == set(FOLDERS)


def test_every_gauge_of_it_is_handed_on() -> None:
    metrics = Metrics(Snapshot(slots=1, kv=KvUsage(blocks=1, used=0, block_tokens=1)))
    metrics.process(Usage(started=1.0, resident_bytes=2, disks=dict.fromkeys(FOLDERS, Disk(3, 4))))
    ours = ("triune_start_time", "triune_resident", "triune_disk")
    found = {(u.family, u.labels): u.value for u in metrics.drain() if u.family.startswith(ours)}
    assert found == {
        ("triune_start_time_seconds", ()): 1.0, ("triune_resident_memory_bytes", ()): 2.0,
        **{("triune_disk_free_bytes", (("folder", f),)): 3.0 for f in FOLDERS},
        **{("triune_disk_size_bytes", (("folder", f),)): 4.0 for f in FOLDERS},
    }  # fmt: skip
    assert {family for family, _ in found} == {name for name in FAMILIES if name.startswith(ours)}
