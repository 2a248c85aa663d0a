"""`make up` with a user's own model, by the real Makefile, builder and server. Run: pytest tests/e2e/test_make.py"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fakes.tiny_folders import write_folder
from fakes.tiny_llama import tiny_checkpoint
from support.real_server import ROOT, free_port

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(not (ROOT / ".venv" / "installed").exists(), reason="`make` would install first; `make install` does"),
]
PORTS = ("HTTP_PORT", "GRPC_PORT", "METRICS_PORT", "OPENAI_PORT")


class Make:
    """The checkout's Makefile, with folders and ports of its own. Their path is one that no shell takes unquoted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "out of (the) way $x é"
        self.folder.mkdir()
        self.ports = {name: free_port() for name in PORTS}

    def __call__(self, verb: str, *arguments: str, exit_code: int = 0, typed: str = "") -> subprocess.CompletedProcess[str]:
        folders = [f"BUILD_DIR={self.folder / 'build'}", f"RUN_FOLDER={self.folder / 'run'}", "CONFIG=/dev/null"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("TRIUNE_", "MAKE", "MFLAGS"))}
        done = subprocess.run(
            ["make", verb, *folders, *arguments], cwd=ROOT, env=environment, input=typed, capture_output=True, text=True,
            timeout=200,
        )  # fmt: skip
        assert done.returncode == exit_code, done
        assert "Traceback" not in done.stdout + done.stderr
        return done

    @property
    def asked_ports(self) -> list[str]:
        return [f"{name}={port}" for name, port in self.ports.items()]

    def answers(self, model: str = "triune") -> None:
        """Make sure that both APIs answer for a model."""
        url, openai = (f"http://127.0.0.1:{self.ports[name]}" for name in ("HTTP_PORT", "OPENAI_PORT"))
        plain = httpx.post(f"{url}/v2/models/{model}/generate", json={"text_input": "a", "max_tokens": 3}, timeout=60)
        assert plain.json()["finish_reason"], plain.text
        body = {"model": model, "prompt": "a", "max_tokens": 3}
        assert httpx.post(f"{openai}/v1/completions", json=body, timeout=60).json()["choices"], openai


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made = Make(tmp_path)
    yield made
    made("down")


def test_a_users_folder_is_built_proved_served_and_switched(make: Make, tmp_path: Path) -> None:
    model = write_folder(tmp_path / "my (own) model", tiny_checkpoint(head_dim=16), "F32")
    other = shutil.copytree(model, tmp_path / "another")
    choices = [f"MODEL={model}", "PRECISION=fp32", "MAX_LENGTH=128", "MAX_SEQUENCES=4"]
    started = make("up", *choices, *make.asked_ports).stdout
    assert "perplexity" in started and "up to 128 tokens" in started and str(make.ports["HTTP_PORT"]) in started
    make.answers()

    again = make("up", *choices).stdout  # the ports need not be repeated
    assert "running already" in again and str(make.ports["HTTP_PORT"]) in again
    assert "older" in make("up", f"MODEL={model}").stdout or "built with" in make("up", f"MODEL={model}").stdout
    assert str(make.ports["HTTP_PORT"]) in make("status").stdout
    assert str(make.ports["HTTP_PORT"]) in make("chat", typed="/quit\n").stderr

    built = sorted((make.folder / "build").iterdir())
    said = make("up", f"MODEL={other}", exit_code=2).stderr
    assert str(model) in said and str(other) in said and "SWITCH=1" in said
    assert sorted((make.folder / "build").iterdir()) == built, "it was built before it was refused"
    taken = free_port()
    assert f"HTTP_PORT={taken}" in make("up", *choices, f"HTTP_PORT={taken}", exit_code=2).stderr
    make.answers()

    both = f"MODELS={shlex.quote(str(other))} {shlex.quote(str(model))}"
    switched = make("up", both, "PRECISION=fp32", "MAX_LENGTH=64", "SWITCH=1").stdout
    assert "another" in switched and switched.count("up to 64 tokens") == 2
    make.answers()
    make.answers("my-own-model")
