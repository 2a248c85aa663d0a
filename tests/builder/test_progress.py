"""What a build shows while it works: percent, bytes, the time left; on a terminal and elsewhere.

Run: pytest tests/builder/test_progress.py
"""

from __future__ import annotations

import io
import os
import pty
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from triune_builder import progress
from triune_builder.fingerprint import FileHashes, sha256
from triune_builder.progress import Display, amount


def test_amounts_are_told_with_percent_and_the_time_left() -> None:
    assert amount(50_000_000, 200_000_000, 10.0) == " 25%, 50 of 200 MB, 30 s left"
    assert amount(1_000_000, 4_000_000, 600.0) == " 25%, 1.0 of 4.0 MB, 30 min left"
    assert amount(3, 12, 7200.0, "weights") == " 25%, 3 of 12 weights, 6.0 h left"
    assert amount(3_000_000, None, 9.0) == "3.0 MB"
    assert amount(50_000_000, 200_000_000, 0.5) == " 25%, 50 of 200 MB", "too early to tell"
    assert amount(7, 7, 9.0, "weights") == "100%, 7 of 7 weights"


@pytest.fixture
def tick(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock."""
    now = 100.0

    def forward(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    return forward


def test_elsewhere_than_on_a_terminal_there_is_a_line_every_some_seconds(tick: Callable[[float], None]) -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=100)).stage("fetch") as clock:
        clock.note("fetching a==1")
        for done in range(1, 31):
            tick(1.0)
            clock.count_bytes(done * 1_000_000, 40_000_000)
    assert [line.split("   peak")[0] for line in out.getvalue().splitlines()] == [
        "fetch       28%, 11 of 40 MB, 29 s left, fetching a==1, 11 s so far",
        "fetch       55%, 22 of 40 MB, 18 s left, fetching a==1, 22 s so far",
        "fetch        30.0 s",
    ]


PROGRAM = """
import sys, time
from rich.console import Console
from triune_builder.progress import Display
with Display(Console(stderr=True, highlight=False)).stage("fetch") as clock:
    clock.note("fetching some-model-of-a-long-name==1.0 [bold]")
    for done in range(1, 8):
        clock.count_bytes(done * 1_000_000, 20_000_000)
        time.sleep(0.12)
"""


@pytest.mark.parametrize("columns", [120, 40])
def test_a_terminal_has_one_line_that_fits_and_its_cursor_back(columns: int) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        variables = {"TERM": "xterm", "COLUMNS": str(columns), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        os.execve(sys.executable, [sys.executable, "-c", PROGRAM], os.environ | variables)
    said, deadline = b"", time.monotonic() + 30
    while time.monotonic() < deadline and select.select([terminal], [], [], 5)[0]:
        try:
            said += os.read(terminal, 1 << 16)
        except OSError:  # it has ended
            break
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, said
    text = said.decode()
    assert "fetch" in text and "35%, 7 of 20 MB" in text
    assert ("[bold]" in text) == (columns == 120), "what does not fit is cut off, the end first"
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert text.count("\n") <= 3  # the live line, and the line that stays


def test_hashing_tells_each_piece_and_a_known_file_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triune_builder.fingerprint._PIECE", 1000)
    file, pieces = tmp_path / "file", list[int]()
    file.write_bytes(b"x" * 2500)
    hashes = FileHashes(tmp_path / "memory.json")
    assert hashes.sha256(file, pieces.append) == sha256(file)
    assert pieces == [1000, 1000, 500]
    hashes.sha256(file, pieces.append)
    assert sum(pieces) == 2500
