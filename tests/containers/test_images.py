"""Both images, and containers of them as strict as the chart's. Run: make test-containers"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from containers.engine import mirrors, run
from containers.running import STRICT, container, wait_healthy
from support.real_server import ROOT
from triune_client import Client
from triune_client.grpc import GrpcClient

QUESTION = "What is the capital of France?"
COMPILERS = ("gcc", "g++", "cc", "c++", "clang", "nvcc", "cicc", "make")
CONTEXT_BYTES = 10_000_000


@pytest.fixture(params=["cpu_image", "gpu_image"])
def image(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


def inside(docker: dict[str, str], image: str, script: str) -> str:
    return run("docker", "run", "--rm", *STRICT, "--entrypoint=bash", image, "-c", script, environment=docker)


def test_it_answers_read_only_as_an_ordinary_user_without_capabilities(
    docker: dict[str, str], image: str, repository: Path
) -> None:
    quick = ("--health-interval=2s",)
    with container(docker, image, *quick, repository=repository) as (name, ports):
        wait_healthy(docker, name)
        with Client(f"http://127.0.0.1:{ports[8000]}") as client, GrpcClient(f"127.0.0.1:{ports[8001]}") as grpc:
            said = client.chat(QUESTION, max_tokens=32).text
            assert "Paris" in said
            assert "".join(chunk.text for chunk in grpc.stream_chat(QUESTION, max_tokens=32)) == said
            assert "".join(chunk.text for chunk in client.stream_chat(QUESTION, max_tokens=32)) == said
        with httpx.Client(trust_env=False) as direct:
            openai = OpenAI(base_url=f"http://127.0.0.1:{ports[8003]}/v1", api_key="none", http_client=direct)
            asked: list[ChatCompletionMessageParam] = [{"role": "user", "content": QUESTION}]
            stream = openai.chat.completions.create(model="triune", messages=asked, max_tokens=32, stream=True)
            assert "".join(choice.delta.content or "" for event in stream for choice in event.choices) == said
        assert "nv_inference_count" in httpx.get(f"http://127.0.0.1:{ports[8002]}/metrics", trust_env=False).text
        assert run("docker", "exec", name, "triune", "health", "--deep", environment=docker)
        run("docker", "stop", "-t", "60", name, environment=docker)
        assert run("docker", "inspect", "-f", "{{.State.ExitCode}}", name, environment=docker) == "0\n"


def test_it_has_no_compiler_and_is_owned_by_root(docker: dict[str, str], image: str) -> None:
    found = f'for name in {" ".join(COMPILERS)}; do type -P "$name" && exit 1; done'
    assert inside(docker, image, f'{found}; find /usr/lib -name "cc1*" | grep . && exit 1; id -u') == "1000\n"
    anywhere = "\\( -type f -o -type d \\) \\( -perm -002 -o -user 1000 \\) -not -path '/proc/*' -not -path '/dev/*'"
    written = inside(docker, image, f"find / -xdev {anywhere} 2> /dev/null || true")
    assert set(written.split()) <= {"/tmp", "/var/tmp", "/run/lock", "/run/triune", "/build"}, "the places named, or nobody's"


def test_its_stub_is_for_its_python_and_its_packages_fit(docker: dict[str, str], image: str) -> None:
    python = "3.12" if image.startswith("triune:") and mirrors("ubuntu") else "3.11"
    script = (
        'cd /opt/tritonserver && grep -ao "libpython3[.][0-9]*" backends/python/triton_python_backend_stub | sort -u'
        '; python -c "import sys; print(sys.version_info[1])"; pip check'
    )
    linked, minor, checked = inside(docker, image, script).strip().split("\n", 2)
    assert (linked, minor) == (f"libpython{python}", python[2:])
    assert "No broken requirements" in checked


def test_what_is_in_it_is_listed_beside_it(docker: dict[str, str], image: str) -> None:
    bom = json.loads((ROOT / "build" / "images" / f"{image.replace(':', '-')}.cdx.json").read_text("utf-8"))
    components = {one["name"]: one for one in bom["components"]}
    listed = inside(docker, image, "pip list --format=json")
    for package in json.loads(listed):
        assert components[package["name"]]["version"] == package["version"]
    assert {"tritonserver", "libc6", "tini"} <= set(components)
    labels: dict[str, Any] = json.loads(run("docker", "inspect", "-f", "{{json .Config.Labels}}", image, environment=docker))
    assert labels["org.opencontainers.image.version"] == "test" and len(labels["org.opencontainers.image.revision"]) == 40


def test_an_engine_is_built_in_it(docker: dict[str, str], cpu_image: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    checkpoint = ROOT / "models" / "r1-nano" / "checkpoint"
    mounted = (f"--volume={tmp_path}:/build", f"--volume={checkpoint}:/checkpoint:ro")
    command = ("build", "--model=/checkpoint", "--precision=fp32", "--max-length=256", "--verify=none")
    run("docker", "run", "--rm", *STRICT, *mounted, cpu_image, *command, environment=docker)
    assert len(list(tmp_path.glob("*/cpu/repository/triune/config.pbtxt"))) == 1


def test_a_container_without_a_repository_says_what_is_missing(docker: dict[str, str], cpu_image: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    done = subprocess.run(
        ["docker", "run", "--rm", *STRICT, f"--volume={tmp_path}:/models:ro", cpu_image],
        env=docker,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "/models" in done.stderr and "hint:" in done.stderr and "Traceback" not in done.stderr


def test_the_context_is_small(docker: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n", "utf-8")
    where = tmp_path / "context"
    run("docker", "build", "-q", "-f", tmp_path / "Dockerfile", f"--output=type=local,dest={where}", ".", environment=docker)
    assert sum(file.stat().st_size for file in where.rglob("*") if file.is_file()) < CONTEXT_BYTES
