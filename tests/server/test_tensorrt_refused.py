"""`triune up` and `triune serve` refuse a TensorRT engine that cannot run here before they start, or look for, a server.

Run: pytest tests/server/test_tensorrt_refused.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.repository import tensorrt_repository
from support.real_server import free_port

pytestmark = pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")


def refused(command: str, repository: Path, folder: Path) -> str:
    """What the command says on stderr, where there is no Triton at all."""
    ports = [f"--{name}-port={free_port()}" for name in ("http", "grpc", "metrics")]
    done = subprocess.run(
        [sys.executable, "-m", "triune_server", command, f"--repository={repository}", f"--run-folder={folder / 'run'}",
         "--openai-port=0", *ports],
        env=os.environ | {"TRIUNE_TRITON_HOME": str(folder / "no-triton")}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, ""), done
    assert not [file for file in (folder / "run").glob("*") if file.name != "lock"], "something was started"
    return done.stderr


@pytest.mark.parametrize("command", ["up", "serve"])
def test_without_a_gpu_one_sentence_says_what_is_needed(tmp_path: Path, command: str) -> None:
    said = refused(command, tensorrt_repository(tmp_path / "repository"), tmp_path)
    assert re.fullmatch(
        r"error: no supported GPU: model\.plan needs an NVIDIA GPU of compute capability 8\.9, and this machine has none that "
        r"can be used \(.+\)\n\nhint: start it on a machine with such a GPU, or build for the CPU: make engine TARGET=cpu\n",
        said,
    ), said


def test_a_damaged_plan_is_told(tmp_path: Path) -> None:
    repository = tensorrt_repository(tmp_path / "repository")
    (repository / "generate/1/model.plan").write_bytes(b"a plan cut off")
    said = refused("up", repository, tmp_path)
    assert re.fullmatch(r"error: .*model\.plan is damaged: it has 14 bytes, engine\.json says 12\n\nhint: .+\n", said), said
