"""The wheels, installed as users do, into environments that hold nothing else. Run: pytest tests/test_packages.py

What an extra lacks is found by pip's own resolution, from the registry that pip is configured with.
"""

from __future__ import annotations

import json
import re
import shutil
import urllib.request
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from support.clean_environment import ROOT, CleanEnvironment, Wheels, build_wheels, source_files
from support.real_server import free_port

PACKAGES = ("builder/triune_builder", "runtime/triune_runtime", "server/triune_server", "gateway/triune_gateway")
# What the extras [tensorrt] and [cuda] are for.
GPU = ("triune_runtime.targets.tensorrt", "triune_runtime.targets.cuda", "triune_runtime.targets.device")
# What an environment with vLLM is for.
VLLM = tuple(f"triune_runtime.targets.vllm.{name}" for name in ("engine", "guides_v1", "guides_v2"))
DRAWN = ("triune_builder.planning.drawing", "triune_builder.comparing.drawing")  # by the extra [load]
# extra -> packages of which it brings all, and modules of these that need something else
EXTRAS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "builder": (
        ("triune_builder", "triune_runtime.targets"),
        (*GPU, "triune_runtime.targets.vllm", *DRAWN, "triune_builder.comparing.problems"),
    ),
    "server": (("triune_server", "triune_gateway", "triune_runtime"), (*GPU, *VLLM)),
    "gateway": (("triune_gateway",), ()),
    "cpu": (("triune_runtime.targets.cpu",), ()),
    "tensorrt": (("triune_runtime.targets.tensorrt", "triune_runtime.targets.device"), ()),
}
CLIENT_EXTRAS = {
    "": ("triune_client.grpc", "triune_client._rich_terminal"),
    "grpc": ("triune_client._rich_terminal",),
    "chat,grpc": (),
}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Wheels:
    return build_wheels(tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="module")
def environment(wheels: Wheels, tmp_path_factory: pytest.TempPathFactory) -> CleanEnvironment:
    """With `pip install triune`; the tests further down install more into it."""
    clean = CleanEnvironment(tmp_path_factory.mktemp("environment"))
    clean.install(wheels.triune)
    return clean


def packed(wheel: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def test_the_wheels_hold_the_packages_and_nothing_else(wheels: Wheels) -> None:
    files = [name for folder in PACKAGES for name in source_files(folder) if not (ROOT / name).is_dir()]
    repository = [name for name in source_files("model_repository") if not name.endswith("/.gitkeep")]
    assert packed(wheels.triune) == {n.partition("/")[2] for n in files} | {f"triune_builder/{n}" for n in repository}
    assert packed(wheels.client) == {name.partition("/")[2] for name in source_files("clients/triune_client")}
    assert packed(wheels.load) == {name.partition("/")[2] for name in source_files("load/triune_load")}


def test_the_base_names_the_extra_that_a_command_needs(environment: CleanEnvironment) -> None:
    told = environment.run("triune", "--help").stdout
    building = "`triune build` and `triune verify` and `triune plan` and `triune compare`"
    assert f'{building} can be used after: pip install "triune[builder]"' in told
    assert '`triune serve` and `triune up` and `triune chat` can be used after: pip install "triune[server]"' in told
    needed = {"build": "builder", "verify": "builder", "plan": "builder", "up": "server", "chat": "server", "load": "load"}
    for command, extra in needed.items():
        error, _, hint = environment.run("triune", command, exit_code=1).stderr.partition("\n\n")
        assert error.startswith("error: ") and "not installed" in error and "\n" not in error
        assert hint == f'hint: pip install "triune[{extra}]"\n'
    assert environment.run("python", "-m", "triune_gateway", exit_code=1).stderr.endswith('pip install "triune[gateway]"\n')


def test_the_base_has_the_commands_that_need_no_extra(environment: CleanEnvironment) -> None:
    assert environment.run("triune", "--version").stdout == f"triune {version('triune')}\n"
    assert "--model" in environment.run("triune", "build", "--help").stdout
    environment.run("triune", "status", exit_code=3)
    assert "no engine of smollm2-135m for cpu is built" in environment.run("triune", "report", exit_code=1).stderr
    assert environment.import_all("triune_server")


def test_the_server_extra_brings_all_that_serving_imports(environment: CleanEnvironment, wheels: Wheels) -> None:
    environment.install(f"{wheels.triune}[server]", wheels.client)
    packages, left_out = EXTRAS["server"]
    assert set(packages) <= {name.partition(".")[0] for name in environment.import_all(*packages, left_out=left_out)}
    assert "triune[server]" not in environment.run("triune", "--help").stdout
    assert "no model repository at" in environment.run("triune", "up", exit_code=1).stderr
    assert "--grpc-url" in environment.run("python", "-m", "triune_gateway", "--help").stdout
    numpy = environment.run("python", "-c", "import numpy; print(numpy.__version__)").stdout
    assert numpy.startswith("1."), "the server's stub reads strings wrongly with NumPy 2"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_alone_brings_all_that_its_packages_import(extra: str, wheels: Wheels, tmp_path: Path) -> None:
    clean = CleanEnvironment(tmp_path)
    clean.install(f"{wheels.triune}[{extra}]", wheels.client)
    packages, left_out = EXTRAS[extra]
    assert clean.import_all(*packages, left_out=left_out)
    clean.run("triune", "--help")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_load_test_needs_no_more_than_its_extra(wheels: Wheels, tmp_path: Path) -> None:
    clean = CleanEnvironment(tmp_path)
    clean.install(f"{wheels.triune}[load]", wheels.load)
    assert clean.import_all("triune_load")
    for command in ("triune-load", "triune"):
        assert "--streams" in clean.run(command, *(["load"] if command == "triune" else []), "--help").stdout


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("extras", CLIENT_EXTRAS)
def test_the_client_needs_no_more_than_its_extras(extras: str, wheels: Wheels, tmp_path: Path) -> None:
    clean = CleanEnvironment(tmp_path)
    clean.install(f"{wheels.client}[{extras}]" if extras else wheels.client)
    assert clean.import_all("triune_client", left_out=CLIENT_EXTRAS[extras])
    clean.run("triune-client", "--help")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.triton
def test_an_engine_is_built_and_served_without_a_checkout(
    wheels: Wheels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIUNE_TRITON_HOME", str(ROOT / ".venv" / "tritonserver"))
    clean = CleanEnvironment(tmp_path)
    clean.install(f"{wheels.triune}[builder,server]", wheels.client)
    shutil.copytree(ROOT / "models" / "r1-nano" / "checkpoint", clean.work / "r1-nano")
    built = clean.run("triune", "build", "--model=r1-nano/", "--precision=fp32", "--verify=none").stdout.split()
    assert re.fullmatch(r"build/r1-nano-\w{8}/cpu/repository", built[0]) and len(built) == 1
    ports = {name: free_port() for name in ("http", "grpc", "metrics", "openai")}
    clean.run("triune", "up", f"--repository={built[0]}", *(f"--{name}-port={port}" for name, port in ports.items()))
    try:
        asked = {"model": "triune", "messages": [{"role": "user", "content": "What is 12 + 30?"}], "temperature": 0}
        request = urllib.request.Request(
            f"http://127.0.0.1:{ports['openai']}/v1/chat/completions", json.dumps(asked).encode(),
            {"content-type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert "42" in json.load(answer)["choices"][0]["message"]["content"]
    finally:
        clean.run("triune", "down")
