"""Checks of the disk, passing and failing; and reads past the page cache. Run: pytest tests/server/doctor/test_disk.py"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from fakes.machine_files import machine
from fakes.repository import fake_repository
from triune_server.doctor import aio, disk
from triune_server.doctor.aio import Rate, measure_reads
from triune_server.doctor.finding import Finding, Verdict

MB, GB = 1 << 20, 10**9


@pytest.mark.parametrize(("free", "verdict"), [(50 * GB, Verdict.GOOD), (GB // 2, Verdict.POOR), (GB // 100, Verdict.BAD)])
def test_room_is_judged(free: int, verdict: Verdict) -> None:
    found = disk.judged_room("disk", free, 100 * GB)
    assert found.verdict is verdict and ("BUILD_DIR" in found.remedy) == (verdict is not Verdict.GOOD)


def test_the_disks_of_folders_that_are_not_there_yet_are_those_of_what_they_will_be_made_in(tmp_path: Path) -> None:
    found = list(disk.room(machine(tmp_path, repository=tmp_path / "not/yet")))
    assert len(found) == 1 and f"{shutil.disk_usage(tmp_path).total / 1e9:,.0f} GB free" in found[0].found


def verdicts(ordered: float, random: float, engine: int) -> list[Verdict]:
    """Of bytes a second, of reads a second, for an engine of so many bytes."""
    rates = Rate(10, int(ordered), 1.0), Rate(int(random), int(random) * 4096, 1.0)
    return [one.verdict for one in disk.judged_speed(*rates, engine)]


def test_speed_is_judged_by_what_a_start_takes_and_by_what_is_asked_of_nvme() -> None:
    assert verdicts(5e9, 600_000, 140 * GB) == [Verdict.GOOD, Verdict.GOOD]
    assert verdicts(5e9, 100_000, 140 * GB) == [Verdict.GOOD, Verdict.POOR]
    assert verdicts(0.5e9, 600_000, 140 * GB) == [Verdict.POOR, Verdict.GOOD]
    assert verdicts(0.5e9, 5_000, GB // 5) == [Verdict.GOOD, Verdict.GOOD]  # no such disk is needed for so small an engine


def look(tmp_path: Path, size: int) -> list[Finding]:
    repository = fake_repository(tmp_path / "repository")
    (repository / "generate/1/model.data").write_bytes(os.urandom(size))
    return list(disk.speed(machine(tmp_path, repository=repository, seconds=0.2)))


def test_the_engines_largest_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measure(path: Path, size: int, seconds: float, *, depth: int, ordered: bool) -> Rate:
        asked.append((path.name, ordered))
        return Rate(1000, 1000 * size, 0.1)

    monkeypatch.setattr(disk, "measure_reads", measure)
    assert [one.verdict for one in look(tmp_path, 16 * MB)] == [Verdict.GOOD, Verdict.GOOD]
    assert asked == [("model.data", True), ("model.data", False)]


def test_a_small_engine_asks_nothing_of_a_disk_and_of_none_nothing_is_known(tmp_path: Path) -> None:
    (found,) = look(tmp_path, 3 * 10**6)
    assert found.verdict is Verdict.GOOD and "largest file has 3 MB" in found.found
    (found,) = disk.speed(machine(tmp_path, repository=tmp_path / "none", said="MODEL=x"))
    assert found.verdict is Verdict.UNKNOWN and found.remedy == "make engine MODEL=x"


def test_of_a_file_system_without_such_reads_the_speed_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def refuse(*_: object, **__: object) -> Rate:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(disk, "measure_reads", refuse)
    (found,) = look(tmp_path / "large", 16 * MB)
    assert found.verdict is Verdict.UNKNOWN and "through the page cache" in found.found and "Invalid argument" in found.found


@pytest.mark.parametrize("ordered", [True, False])
def test_reads_are_counted(ordered: bool, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(MB))
    try:
        rate = measure_reads(file, 4096, 0.05, depth=8, ordered=ordered)
    except OSError as error:
        pytest.skip(f"no such reads here: {error}")
    assert rate.reads >= 4 and rate.bytes == rate.reads * 4096 and rate.seconds >= 0.05


def test_what_is_read_is_the_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 16 + b"\xff" * 4096)
    descriptor = os.open(file, os.O_RDONLY)
    try:
        batch = aio._Batch(descriptor, 4096, 2)
    except OSError as error:
        pytest.skip(f"no such reads here: {error}")
    try:
        batch.submit(aio.np.array([4096, 0]))
        assert batch.wait() == 2
        assert batch._memory[:4096] == b"\xff" * 4096 and batch._memory[4096:] == bytes(range(256)) * 16
    finally:
        batch.close()
        os.close(descriptor)


def test_a_file_that_is_too_small_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(OSError):
        measure_reads(tmp_path / "file", 4096, 0.05, depth=8, ordered=False)
