"""The compose stack: up when a question can be answered, several gateways, keys, down. Run: make test-containers"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from containers.engine import run
from containers.running import wait_until
from support.real_server import ROOT, free_port
from triune_client import Client
from triune_client.grpc import GrpcClient

KEY = "sk-of-the-stack"
ASKED = {"model": "triune", "max_tokens": 16, "messages": [{"role": "user", "content": "What is the capital of France?"}]}
FILES = ("-f", str(ROOT / "docker" / "compose.yaml"))
PROJECT = "triune-test"


@pytest.fixture(scope="module")
def stack(
    docker: dict[str, str], cpu_image: str, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The environment of a running one with two gateways, which `--wait` has found healthy."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"{KEY}\n", "utf-8")
    keys.chmod(0o444)
    keys.parent.chmod(0o755)
    first = free_port()
    said = {
        "TRIUNE_IMAGE": cpu_image, "TRIUNE_REPOSITORY": str(repository), "TRIUNE_API_KEY_FILE": str(keys),
        "TRIUNE_GATEWAYS": "2", "TRIUNE_OPENAI_PORTS": f"{first}-{first + 1}", "TRIUNE_MEMORY": "4g",
    } | {f"TRIUNE_{name}_PORT": str(free_port()) for name in ("HTTP", "GRPC", "METRICS")}  # fmt: skip
    environment = docker | said | {"FIRST": str(first)}
    compose = ("docker", "compose", "-p", PROJECT, *FILES)
    try:
        run(*compose, "up", "--no-build", "--pull=never", "--wait", "--wait-timeout=180", environment=environment)
        yield environment
    finally:
        run(*compose, "down", "--volumes", "--timeout=60", environment=environment)


def test_up_ends_when_a_question_can_be_answered(stack: dict[str, str]) -> None:
    with Client(f"http://127.0.0.1:{stack['TRIUNE_HTTP_PORT']}") as client:
        assert "Paris" in client.chat("What is the capital of France?", max_tokens=16).text
    with GrpcClient(f"127.0.0.1:{stack['TRIUNE_GRPC_PORT']}") as grpc:
        assert "Paris" in "".join(c.text for c in grpc.stream_chat("What is the capital of France?", max_tokens=16))


def test_every_gateway_answers_those_who_have_a_key(stack: dict[str, str]) -> None:
    for port in (int(stack["FIRST"]), int(stack["FIRST"]) + 1):
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        assert httpx.post(url, json=ASKED, timeout=60, trust_env=False).status_code == 401
        answer = httpx.post(url, json=ASKED, timeout=60, trust_env=False, headers={"authorization": f"Bearer {KEY}"})
        assert "Paris" in answer.json()["choices"][0]["message"]["content"]


def test_a_server_that_is_killed_comes_back(stack: dict[str, str]) -> None:
    # From inside: after `docker kill` an engine would not start it again.
    script = "for comm in /proc/[0-9]*/comm; do [ $(< $comm) != tritonserver ] || kill -9 $(cut -d/ -f3 <<< $comm); done"
    run("docker", "exec", f"{PROJECT}-server-1", "bash", "-c", script, environment=stack)

    def answers() -> bool:
        with Client(f"http://127.0.0.1:{stack['TRIUNE_HTTP_PORT']}", max_retries=0) as client:
            return "Paris" in client.chat("What is the capital of France?", max_tokens=16).text

    wait_until(answers)
