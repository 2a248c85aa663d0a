"""`triune health` of a server, over a stand-in for the binary. Run: pytest tests/server/test_health.py"""

from __future__ import annotations

import subprocess
import sys

from fakes.command import Triune
from triune_server.draining_file import stalled_file


def health(triune: Triune, depth: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "triune_server.health", f"--{depth}", f"--run-folder={triune.run_folder}"]
    done = subprocess.run(command, env=triune.environment, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout


def test_a_server_of_which_a_process_hangs_lives_and_is_not_ready(triune: Triune) -> None:
    triune("up", *triune.served)
    assert health(triune, "ready") == (0, "healthy: ready\n")
    stalled_file(triune.run_folder).write_text("generate has given no sign of life for 10 s\n")
    assert health(triune, "ready") == (1, "unhealthy: it hangs: generate has given no sign of life for 10 s\n")
    assert health(triune, "live") == (0, "healthy: live\n")
