"""A gateway without a server beside it, as in a container of its own. Run: pytest tests/server/test_gateway_alone.py"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from fakes.repository import fake_repository
from support.real_server import free_port

KEY = "sk-alone"


@contextmanager
def gateway(*arguments: str, **environment: str) -> Iterator[str]:
    """The URL of a running one, ended in the end by SIGTERM, which it heeds."""
    port = free_port()
    said = {"TRIUNE_OPENAI_PORT": str(port), "TRIUNE_CONFIG": os.devnull, **environment}
    process = subprocess.Popen(
        [sys.executable, "-m", "triune_server.entry", "gateway", f"--grpc-url=127.0.0.1:{free_port()}", *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | said,
    )
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 30
        while True:
            try:
                httpx.get(f"{url}/health", trust_env=False)
                break
            except httpx.ConnectError:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
        yield url
        process.terminate()
        assert process.wait(20) in (0, -15)
    finally:
        process.kill()


def test_it_says_that_nothing_is_behind_it(tmp_path: Path) -> None:
    with gateway() as url:
        assert httpx.get(f"{url}/health", trust_env=False).status_code == 503


def test_its_settings_are_the_servers_and_its_own_options_are_passed_on(tmp_path: Path) -> None:
    keys, log = tmp_path / "keys", tmp_path / "log"
    keys.write_text(KEY)
    repository = fake_repository(tmp_path / "repository")
    environment = {"TRIUNE_API_KEY_FILE": str(keys), "TRIUNE_REPOSITORY": str(repository), "TRIUNE_NAME": "named"}
    with gateway("--alias=third", f"--access-log={log}", **environment) as url:
        assert httpx.get(f"{url}/v1/models", trust_env=False).status_code == 401
        answer = httpx.get(f"{url}/v1/models", headers={"authorization": f"Bearer {KEY}"}, trust_env=False)
        assert {"triune", "named", "third"} < {model["id"] for model in answer.json()["data"]}, "and the engine's own name"
    assert "/v1/models" in log.read_text()
