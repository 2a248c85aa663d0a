"""Ctrl-C at moments of a build by the real command ends it quietly, and the next one succeeds.

Run: pytest tests/builder/test_interrupted.py; tests/e2e/test_interrupted_up.py does the same to all of `make up`, and
test_pipeline_kill.py shows that no moment leaves anything wrong.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from support.interrupting import hears_ctrl_c, interrupt, leftover

QUIET = {name: value for name, value in os.environ.items() if name not in ("MAKELEVEL", "MAKEFLAGS")}


def build_command(folder: Path) -> list[str]:
    build = [sys.executable, "-m", "triune_server.entry", "build", "--model=r1-nano", "--precision=fp32", "--verify=none"]
    return [*build, "--max-sequences=2", "--max-length=256", f"--build-dir={folder}"]


def environment() -> dict[str, str]:
    return QUIET | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def test_an_interrupted_build_is_quiet_and_the_next_succeeds(tmp_path: Path) -> None:
    chance, folder = random.Random(5), tmp_path / "build"
    for low, high in ((0.1, 0.4), (1.0, 1.6)):  # of the imports, of the stages
        ended = interrupt(build_command(folder), chance.uniform(low, high), environment())
        if folder.is_dir() and list(folder.glob("*/cpu/repository")):  # all was done when it came
            assert ended.code in (0, -signal.SIGINT), ended
        else:
            assert ended.quietly and ended.said.splitlines()[-1] == "interrupted", ended
        assert not leftover(tmp_path)
    done = subprocess.run(build_command(folder), env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(folder.glob("*/cpu/repository/generate/1/engine.json"))


CHILD = """
import subprocess, sys, time
from triune_runtime.interruption import end_on_interrupt
end_on_interrupt()
with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True) as child:
    print(child.pid, flush=True)
    time.sleep(60)
"""


def test_what_a_command_has_started_ends_before_it() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=hears_ctrl_c,
    )  # fmt: skip
    assert process.stdout is not None
    child = int(process.stdout.readline())
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1] == "interrupted\n"
    assert process.returncode == 130
    assert not psutil.pid_exists(child)
