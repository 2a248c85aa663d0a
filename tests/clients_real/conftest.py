"""Runs a script in the environment of a real client, against the real server.

The environments are made by `make test-clients`, which also asks for these tests; `make test` says that it skips them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.real_server import REPOSITORY, ROOT, RealServer

SCRIPTS = Path(__file__).parent / "scripts"
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def client_bin(request: pytest.FixtureRequest) -> Path:
    """The programs of the client that the test's module is named after."""
    if not os.environ.get("TRIUNE_TEST_CLIENTS"):
        pytest.skip("needs the clients in environments of their own: run `make test-clients`")
    name = request.module.CLIENT
    folder: Path = ROOT / ".venvs" / f"client-{name}" / "bin"
    assert folder.exists(), f"no environment for {name}: run `make test-clients`"
    return folder


@pytest.fixture
def run(client_bin: Path, server: RealServer, request: pytest.FixtureRequest) -> Run:
    """Runs the client's script with one of its functions; gives what that returns."""

    def run_function(function: str, timeout_s: float = 180.0) -> dict[str, Any]:
        addresses = {
            "HTTP": server.options.http_url,
            "GRPC": server.options.grpc_url,
            "OPENAI": f"http://127.0.0.1:{server.options.openai_port}/v1",
        }
        return call(client_bin, request.module.CLIENT, function, addresses, timeout_s)

    return run_function


def call(client_bin: Path, client: str, function: str, addresses: dict[str, str], timeout_s: float = 180.0) -> dict[str, Any]:
    """What a function of a client's script returns."""
    script = SCRIPTS / f"use_{client.replace('-', '_')}.py"
    environment = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "ADDRESSES": json.dumps(addresses)}
    done = subprocess.run(
        [client_bin / "python", script, function], capture_output=True, text=True, timeout=timeout_s, env=environment
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """The served model's tokenizer as a folder that transformers opens: the profilers count tokens with it."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    shutil.copy(REPOSITORY / "generate/1/tokenizer.json", folder)
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named), "utf-8")
    return folder
