"""`triune up`, `status`, `logs` and `down` as a user types them, over the fake engine. Run: pytest tests/e2e/test_cli.py"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fakes.repository import fake_repository
from support.real_server import free_port

pytestmark = pytest.mark.triton
NOT_RUNNING = 3


def triune(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "triune_server", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def run_folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "run"
    triune("down", "--run-folder", tmp_path / "run")


def test_a_server_is_started_shown_and_stopped(tmp_path: Path, run_folder: Path) -> None:
    here = ("--run-folder", run_folder)
    ports = {name: free_port() for name in ("--http-port", "--grpc-port", "--metrics-port", "--openai-port")}
    up = ("up", "--repository", fake_repository(tmp_path / "repository"), *here, *(x for pair in ports.items() for x in pair))
    assert triune("status", *here).returncode == NOT_RUNNING

    started = triune(*up)
    assert started.returncode == 0, started.stderr
    (curl,) = re.findall(r"^  (curl .*)$", started.stdout, re.MULTILINE)
    answer = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, timeout=30)
    assert json.loads(answer.stdout)["finish_reason"], "the printed line does not work when pasted"

    again = triune(*up)
    assert again.returncode == 0
    assert "running already" in again.stdout and str(ports["--http-port"]) in again.stdout

    status = triune("status", "--json", *here)
    seen = json.loads(status.stdout)
    assert status.returncode == 0
    assert seen["ready"] and seen["requests"] == {"running": 0, "waiting": 0}
    assert seen["ports"]["HTTP_PORT"] == ports["--http-port"]
    assert seen["memory_bytes"] > 50e6
    assert "READY" in triune("logs", *here).stdout

    family = [psutil.Process(seen["pid"]), *psutil.Process(seen["pid"]).children(recursive=True)]
    # Supervisor, server, a process for each model with code, the front, the gateway, and what renders the chat of `curl`.
    assert len(family) == 11
    assert triune("down", *here).returncode == 0
    assert not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert triune("status", *here).returncode == NOT_RUNNING
    assert "no server is running" in triune("down", *here).stdout


def test_what_cannot_be_served_is_one_sentence_and_a_remedy(tmp_path: Path, run_folder: Path) -> None:
    here = ("--run-folder", run_folder)
    missing = triune("up", "--repository", tmp_path / "nothing", *here)
    assert missing.returncode == 1
    assert re.fullmatch(r"error: no model repository at .*nothing\n\nhint: .*make engine.*\n", missing.stderr)

    repository = fake_repository(tmp_path / "repository")
    (repository / "generate" / "1" / "tokenizer.json").write_text("{}")
    ports = ("--http-port", free_port(), "--grpc-port", free_port(), "--metrics-port", free_port(), "--openai-port", 0)
    broken = triune("up", "--repository", repository, *here, *ports)
    assert broken.returncode == 1
    assert "tokenizer.json" in broken.stderr and "hint: " in broken.stderr
    assert "Traceback" not in broken.stderr


def test_two_models_of_one_name_are_refused_before_either_is_built(tmp_path: Path, run_folder: Path) -> None:
    twice = ["--models=r1-nano", "--models=r1-nano", f"--build-dir={tmp_path / 'build'}", f"--run-folder={run_folder}"]
    asked = subprocess.run(
        [sys.executable, "-m", "triune_server.entry", "up", "--build", *twice, "--config=/dev/null"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert asked.returncode == 1
    assert asked.stderr == (
        "error: two models are called r1-nano\n\nhint: give one another name: [[models]] with name = ... in triune.toml\n"
    )
    assert not (tmp_path / "build").exists()
