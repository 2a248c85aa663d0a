"""The load test on the real server, over every protocol it serves. Run: pytest tests/load/test_real_server.py"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.real_server import ROOT, RealServer
from triune_load.protocols.table import PROTOCOLS

TRIUNE = Path(sys.executable).parent / "triune"


def load(server: RealServer, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [TRIUNE, "load", f"--running={server.log.parent}", "--quiet", f"--json={folder / 'result.json'}", *options]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, cwd=ROOT)


@pytest.mark.triton
@pytest.mark.parametrize("protocol", ["chat", "kserve-grpc"])
def test_the_small_acceptance_profile_passes(server: RealServer, tmp_path: Path, protocol: str) -> None:
    done = load(server, tmp_path, f"--protocol={protocol}", "--profile=load/profiles/small.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "result.json").read_text("utf-8"))
    step = result["steps"][0]
    assert step["figures"]["left"] > 0 and step["server"]["memory_most_bytes"] > 1e8
    assert result["checks"]["freed"] == {"enabled": True, "violations": 0}
    assert result["settings"]["promises"]["counted"] and result["settings"]["promises"]["finished"]


@pytest.mark.triton
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_gives_right_answers(server: RealServer, tmp_path: Path, protocol: str) -> None:
    done = load(
        server, tmp_path, f"--protocol={protocol}", "--streams=3", "--requests=9", "--repeats=0.6", "--input-tokens=12",
        "--output-tokens=6",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "result.json").read_text("utf-8"))
    assert result["repeats_compared"] > 0
    queue = result["steps"][0]["figures"]["latencies"].get("queue_ms")
    assert (queue is not None) == (PROTOCOLS[protocol].port != "OPENAI_PORT")


@pytest.mark.triton
def test_a_protocol_that_is_not_served_is_said_to_be_none(server: RealServer, tmp_path: Path) -> None:
    done = subprocess.run(
        [TRIUNE, "load", f"--url={server.url}", "--protocol=responses", "--model=triune", "--quiet"],
        capture_output=True, text=True, timeout=300, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout
    assert "does not answer OpenAI's /v1/responses: not found" in done.stderr


def test_the_command_of_the_server_has_it_too() -> None:
    done = subprocess.run([TRIUNE, "load", "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: triune load" in done.stdout and "--slo" in done.stdout
