"""A GPU that is lost under a service ends its process, and everyone is answered first.

Run: pytest -s -m gpu tests/gpu/test_lost_gpu.py. Takes about 20 s, in a process of its own; the GPU serves others on.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from triune_runtime.machine import this_machine

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parents[2]


def test_a_gpu_that_is_lost_answers_everyone_and_ends_the_process(tmp_path: Path) -> None:
    machine = this_machine()
    if not machine.gpus:
        pytest.skip(f"no supported GPU: {machine.no_gpu}")
    path = os.pathsep.join(
        [os.environ.get("PYTHONPATH", ""), *(str(ROOT / part) for part in ("builder", "runtime", "tests", "."))]
    )
    done = subprocess.run(
        [sys.executable, "-m", "support.lost_gpu_trial", str(tmp_path)], env=os.environ | {"PYTHONPATH": path}, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=90,
    )  # fmt: skip
    print("\n".join(done.stdout.splitlines()[-30:]))
    assert done.returncode == 70, "it ends as the service says, not by a crash"
    answered = re.findall(r"(\d+) of (\d+) are answered, (\d+) with an error", done.stdout)
    assert answered and answered[-1][0] == answered[-1][1], "everyone is answered"
