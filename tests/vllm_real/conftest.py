"""The real vLLM, in the environment that `make .venvs/vllm/installed` makes. Run: make test-vllm"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venvs/vllm/bin/python"
ZYGOTE = ROOT / "tests/support/vllm_zygote.py"


@pytest.fixture(scope="session", autouse=True)
def _asked() -> None:
    if not os.environ.get("TRIUNE_TEST_VLLM"):
        pytest.skip("takes long, and needs vLLM: make test-vllm")


@pytest.fixture(scope="session")
def vllm_command() -> Iterator[list[str]]:
    """What starts a process of vLLM that has imported everything already."""
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "socket"
        quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
        around = os.environ | quiet | {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "PYTHONPATH": str(ROOT / "runtime")}
        process = subprocess.Popen([PYTHON, ZYGOTE, "serve", socket], env=around, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "forks\n"
            yield [str(PYTHON), str(ZYGOTE), str(socket), "host"]
        finally:
            process.kill()
            process.wait()
            sys.stderr.flush()
