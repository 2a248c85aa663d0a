"""Dockerfiles and compose files as they are read, without an engine. Run: make test-containers"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fakes.docker import FakeDocker
from support.real_server import ROOT

DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("Dockerfile*"))
FIRST = DOCKER / "compose.yaml"
OVERRIDES = sorted(set(DOCKER.glob("compose*.yaml")) - {FIRST})
COMBINATIONS = [chosen for n in range(len(OVERRIDES) + 1) for chosen in itertools.combinations(OVERRIDES, n)]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


def compose(tools: Path, *files: Path, **said: str) -> dict[str, Any]:
    """What compose makes of the files."""
    named = [word for file in (FIRST, *files) for word in ("-f", str(file))]
    environment = {
        "PATH": os.environ["PATH"],
        "TRIUNE_REPOSITORY": "/somewhere",
        "TRIUNE_GRAFANA_PASSWORD_FILE": "/password",
        **said,
    }
    done = subprocess.run(
        [tools / "docker-compose", *named, "config", "--format=json"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_hadolint_has_nothing_to_say(tools: Path, file: Path) -> None:
    done = subprocess.run([tools / "hadolint", "--no-color", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("files", COMBINATIONS, ids=lambda files: "+".join(file.stem for file in files) or "alone")
def test_every_combination_of_compose_files_is_valid(tools: Path, files: tuple[Path, ...]) -> None:
    services = compose(tools, *files)["services"]
    for name in ("server", "gateway"):
        own = services[name]
        assert own["read_only"] and own["cap_drop"] == ["ALL"] and own["user"] == "1000:1000"
        assert own["image"] == (f"triune:{VERSION}" if "compose.gpu" in {f.stem for f in files} else f"triune-cpu:{VERSION}")
        assert "--deep" in own["healthcheck"]["test"], "it tests generation"


def test_only_the_override_asks_for_a_gpu(tools: Path) -> None:
    reserved = [
        compose(tools, *files, TRIUNE_GPUS="2")["services"]["server"].get("deploy", {}).get("resources", {}).get("reservations")
        for files in ((), (DOCKER / "compose.gpu.yaml",))
    ]
    assert reserved[0] is None
    assert reserved[1] == {"devices": [{"capabilities": ["gpu"], "driver": "nvidia", "count": 2}]}


def test_settings_reach_the_services(tools: Path) -> None:
    said = {
        "TRIUNE_GATEWAYS": "3",
        "TRIUNE_OPENAI_PORTS": "8003-8005",
        "TRIUNE_API_KEY_FILE": "/keys",
        "TRIUNE_HTTP_PORT": "9000",
        "TRIUNE_GRPC_CONNECTION_S": "60",
    }
    found = compose(tools, **said)
    gateway = found["services"]["gateway"]
    assert gateway["deploy"]["replicas"] == 3 and gateway["ports"][0]["published"] == "8003-8005"
    assert gateway["environment"]["TRIUNE_API_KEY_FILE"] == "/run/secrets/api_keys"
    assert found["services"]["server"]["environment"]["TRIUNE_GRPC_CONNECTION_S"] == "60"
    assert found["secrets"]["api_keys"]["file"] == "/keys"
    assert {port["published"] for port in found["services"]["server"]["ports"]} == {"9000", "8001", "8002"}
    assert "TRIUNE_API_KEY_FILE" not in found["services"]["server"]["environment"], "its own port is not a gateway's"


def test_answers_are_kept_where_a_folder_is_named_and_else_nowhere(tools: Path) -> None:
    kept = compose(tools, TRIUNE_RESPONSES_FOLDER="/data", TRIUNE_RESPONSES_NAME="of.db")["services"]["gateway"]
    assert kept["environment"]["TRIUNE_RESPONSES_FILE"] == "/responses/of.db"
    assert [one["source"] for one in kept["volumes"] if one["target"] == "/responses"] == ["/data"]
    assert not compose(tools)["services"]["gateway"]["environment"]["TRIUNE_RESPONSES_FILE"], "empty: as if nothing were said"


def test_no_image_is_pulled_or_built_by_compose(tools: Path) -> None:
    for service in compose(tools, DOCKER / "compose.gpu.yaml")["services"].values():
        assert service["pull_policy"] == "never" and "build" not in service


def test_variables_that_are_empty_are_as_if_they_were_not_said(tools: Path) -> None:
    texts = "".join(file.read_text("utf-8") for file in DOCKER.glob("compose*.yaml"))
    optional = set(re.findall(r"\$\{(TRIUNE_\w+):-", texts))
    assert compose(tools, *OVERRIDES, **dict.fromkeys(optional, "")) == compose(tools, *OVERRIDES)


def test_without_a_repository_compose_says_so(tools: Path) -> None:
    done = subprocess.run(
        [tools / "docker-compose", "-f", FIRST, "config", "-q"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode and "TRIUNE_REPOSITORY" in done.stderr


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_images_are_built_by_any_builder_and_run_by_a_number(file: Path) -> None:
    text = file.read_text("utf-8")
    assert not text.startswith("# syntax="), "it would be fetched from a registry"
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE)[-1] == "1000:1000"
    assert f"ARG VERSION={VERSION}\n" in text
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    stages = re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE)
    assert all(base in stages or base == "scratch" or base.startswith("${") for base in bases), "bases can be named otherwise"


@pytest.mark.parametrize(
    ("played", "arguments", "said"),
    [
        ({}, [], "usage: docker/build DOCKERFILE TAG"),
        ({}, ["Dockerfile.none", "a:1"], "there is no docker/Dockerfile.none"),
        ({"buildx": False}, ["Dockerfile.cpu", "a:1"], "docker has no plugin buildx"),
        ({"daemon": None}, ["Dockerfile.cpu", "a:1"], "docker's daemon does not answer: Cannot connect"),
    ],
)
def test_what_no_image_can_be_built_without_is_said_first(
    tmp_path: Path, played: dict[str, Any], arguments: list[str], said: str
) -> None:
    docker = FakeDocker(tmp_path)
    docker.play(**played)
    environment = os.environ | {"PATH": f"{docker.bin}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([DOCKER / "build", *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode and said in done.stderr and not docker.calls("build")
