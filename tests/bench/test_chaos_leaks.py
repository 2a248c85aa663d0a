"""The checker of the chaos suite finds what is left behind: real processes, segments, descriptors.

Run: pytest tests/bench/test_chaos_leaks.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from bench.chaos.family import adopt_orphans, family, kill_all, role_of
from bench.chaos.footprint import DESCRIPTORS, GROWTH_MIB, SHARED_MEMORY, Footprint, Member, Memory, grown, left_behind

# A process that starts another in a session of its own, says who that is, and ends.
PARENT = """
import subprocess, sys
words = [sys.executable, "-c", sys.argv[1]]
child = subprocess.Popen(words, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
child.stdout.readline()
print(child.pid, flush=True)
"""
CHILD = "import time; print(flush=True); time.sleep(60)"
MAPS = """
import mmap, os, time
file = os.open("/dev/shm/{name}", os.O_RDWR | os.O_CREAT, 0o600)
os.ftruncate(file, 4096)
held = mmap.mmap(file, 4096)
print(flush=True)
time.sleep(60)
"""

FRONT_OPTIONS = ["--http-port=0", "--http-upstream=x", "--metrics-port=0", "--metrics-upstream=x"]


@pytest.fixture(autouse=True)
def known() -> Iterator[frozenset[int]]:
    """Who is below this process before a test; what a test starts is ended after it."""
    before = frozenset(process.pid for process in psutil.Process().children(recursive=True))
    adopt_orphans()
    yield before
    kill_all(before)
    adopt_orphans(on=False)


def orphan(code: str) -> int:
    """Start a process whose parent has ended; its id."""
    done = subprocess.run([sys.executable, "-c", PARENT, code], capture_output=True, text=True, timeout=30, check=True)
    return int(done.stdout)


def test_a_process_whose_parent_was_killed_is_found_without_its_name(known: frozenset[int], tmp_path: Path) -> None:
    pid = orphan(CHILD)
    assert [process.pid for process in family(known=known)] == [pid]
    (found,) = left_behind(Memory().look(family(known=known), tmp_path))
    assert found.startswith("leaked process") and str(pid) in found
    kill_all(known)
    assert family(known=known) == [] and left_behind(Memory().look([], tmp_path)) == []


def test_a_segment_is_found_after_the_process_that_mapped_it_was_killed(known: frozenset[int], tmp_path: Path) -> None:
    name = f"chaos-test-{os.getpid()}"
    memory = Memory()
    try:
        orphan(MAPS.format(name=name))
        assert name in memory.look(family(known=known), tmp_path).segments
        kill_all(known)
        (found,) = left_behind(memory.look([], tmp_path))
        assert found.startswith("leaked segment") and name in found
    finally:
        (SHARED_MEMORY / name).unlink(missing_ok=True)
    assert left_behind(memory.look([], tmp_path)) == []


def test_a_segment_that_begins_as_one_that_was_mapped_is_known_and_one_of_another_run_is_not(
    known: frozenset[int], tmp_path: Path
) -> None:
    stem = f"triune{os.getpid():016x}_"
    mapped, later, other = (SHARED_MEMORY / name for name in (f"{stem}1_a", f"{stem}2_b", f"triune{os.getpid():016d}_1_a"))
    memory = Memory()
    try:
        orphan(MAPS.format(name=mapped.name))
        later.touch(), other.touch()
        memory.look(family(known=known), tmp_path)
        kill_all(known)
        assert memory.look([], tmp_path).segments == {mapped.name, later.name}
    finally:
        for file in (mapped, later, other):
            file.unlink(missing_ok=True)


def test_open_descriptors_of_a_process_are_counted(known: frozenset[int], tmp_path: Path) -> None:
    opens = f"import os, time; held = [os.dup(0) for _ in range({DESCRIPTORS + 5})]; print(flush=True); time.sleep(60)"
    memory = Memory()
    few = orphan(CHILD)
    before = memory.look(family(known=known), tmp_path)
    psutil.Process(few).kill()
    many = orphan(opens)
    until = time.monotonic() + 10
    while len(family(known=known)) > 1 and time.monotonic() < until:
        time.sleep(0.05)
    (found,) = grown(before, memory.look(family(known=known), tmp_path))
    assert found.startswith("leaked descriptors") and str(many) in found


def test_files_in_the_temporary_folder_are_found_but_for_usual_ones(tmp_path: Path) -> None:
    (tmp_path / "a").touch(), (tmp_path / "b").touch()
    assert left_behind(Memory(usual=frozenset({"a"})).look([], tmp_path)) == ["leaked file: b in its temporary folder"]


def test_a_run_that_was_started_anew_may_have_other_files_but_not_more() -> None:
    before = Footprint((), frozenset(), frozenset({"a", "a/http"}))
    assert grown(before, replace(before, files=frozenset({"b", "b/http"}))) == []
    assert grown(before, replace(before, files=frozenset({"b", "a", "a/http"}))) == ["leaked file: b in its temporary folder"]


def test_a_second_process_of_a_role_and_memory_that_grows_are_found_and_less_of_each_is_not() -> None:
    one = Member(1, 0.0, "generate", 20, 100.0)
    before = Footprint((one,), frozenset({"s"}), frozenset())
    assert grown(before, Footprint((replace(one, pid=2, memory_mib=90.0),), frozenset(), frozenset())) == []
    assert grown(before, replace(before, members=(one, replace(one, pid=2)))) == ["leaked process: 2 of generate, before 1"]
    (found,) = grown(before, replace(before, members=(replace(one, memory_mib=101.0 + GROWTH_MIB),)))
    assert found.startswith("memory: generate")
    (found,) = grown(before, replace(before, segments=frozenset({"s", "t"})))
    assert found.startswith("leaked segment: 1 more")


@pytest.mark.parametrize(
    ("words", "role"),
    [
        (["-c", "import time; time.sleep(60)"], "python"),
        (["-c", "import time; time.sleep(60)  # from triune_runtime.text.rendering_process import main"], "renderer"),
        (["-m", "http.server", "--bind", "127.0.0.1", "0"], "http"),
        (["-m", "triune_gateway.kserve", *FRONT_OPTIONS], "front"),
    ],
)
def test_a_role_is_a_python_processs_module_or_a_programs_name(words: list[str], role: str) -> None:
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        found = psutil.Process(process.pid)
        while found.cmdline()[1:2] != words[:1]:  # not yet the program: a copy of this one
            time.sleep(0.01)
        assert role_of(found).startswith(role)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("count", "leaks"), [(1, False), (2, False), (3, True)])
def test_each_of_two_steps_may_have_a_renderer_later_and_no_more(count: int, leaks: bool) -> None:
    def seen(number: int) -> Footprint:
        return Footprint(tuple(Member(pid, 1.0, "renderer", 5, 10.0) for pid in range(number)))

    assert bool(grown(seen(0), seen(count))) == leaks
