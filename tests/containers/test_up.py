"""`triune up --where docker` with a real engine: started, asked, looked at, stopped, and told why it does not start.

Run: make test-containers
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.checkouts import PORTS, for_containers
from support.real_server import free_port


@dataclass(frozen=True)
class Here:
    """A folder where commands run."""

    folder: Path
    environment: dict[str, str]

    def __call__(self, *arguments: str, exit_code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "triune_server.entry", *arguments], cwd=self.folder, env=self.environment,
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == exit_code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def here(docker: dict[str, str], cpu_image: str, repository: Path, tmp_path: Path) -> Here:
    keys = tmp_path / "keys.txt"
    keys.write_text("sk-up\n")
    for_containers(keys)
    ports = "".join(f"{name.lower()} = {free_port()}\n" for name in PORTS)
    (tmp_path / "triune.toml").write_text(f'repository = "{repository}"\napi_key_file = "keys.txt"\n{ports}')
    said = {"TRIUNE_IMAGE": cpu_image, "COMPOSE_PROJECT_NAME": "triune-up", "PYTHONPATH": os.pathsep.join(sys.path)}
    return Here(tmp_path, docker | said)


def test_a_stack_of_triune_toml_answers_those_with_a_key_and_is_known_to_the_other_commands(here: Here) -> None:
    try:
        assert "ready after" in here("up", "--where=docker")
        status = json.loads(here("status", "--json"))
        assert status["ready"] and set(status["containers"].values()) == {"running, healthy"}
        url = f"http://127.0.0.1:{status['ports']['OPENAI_PORT']}/v1/models"
        codes = [
            subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *key, url], capture_output=True, text=True)
            for key in ([], ["-H", "Authorization: Bearer sk-up"])
        ]
        assert [code.stdout for code in codes] == ["401", "200"]
        logs = here("logs")
        assert "server-1" in logs and "smollm2-135m, w8a8 for cpu" in logs and '"path": "/v1/models"' in logs
        here("load", "--running", "--protocol=kserve-grpc", "--streams=1", "--requests=2")
    finally:
        assert "stopped the containers of triune-up" in here("down")
    assert "no server is running" in here("status", exit_code=3)


def test_a_server_that_cannot_start_says_why_and_nothing_is_left(here: Here, repository: Path) -> None:
    broken = here.folder / "broken"
    shutil.copytree(repository, broken)
    (broken / "generate" / "1" / "model.onnx").write_text("no graph")
    said = here("up", "--where=docker", f"--repository={broken}", exit_code=1)
    assert "error: triune-up-server-1 " in said and "stack.log" in said
    assert "no server is running" in here("status", exit_code=3)
