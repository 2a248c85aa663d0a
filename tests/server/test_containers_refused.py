"""What is said before a stack is started, and of one that does not start, over a stand-in for docker.

Run: pytest tests/server/test_containers_refused.py
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import socket
from pathlib import Path

import pytest

from fakes.repository import fake_repository
from support.checkouts import PORTS, Checkout, for_containers
from support.real_server import free_port
from triune_runtime.manifest import CacheTensor, EngineManifest


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_without_docker_that_is_said_before_anything_is_built(checkout: Checkout, tmp_path: Path) -> None:
    checkout.path = str(tmp_path)
    for arguments in (["--repository=repository"], ["--build", "--model=smollm2-135m"]):
        said = checkout("up", "--where=docker", *arguments, exit_code=1).stderr
        assert said.startswith("error: there is no docker on PATH\n\nhint: install Docker Engine 25 or later")
    assert not (checkout.folder / "build").exists()


@pytest.mark.parametrize(
    ("played", "problem", "remedy"),
    [
        ({"compose": None}, "docker has no compose plugin", "docker-compose-plugin"),
        ({"compose": "v2.17.3"}, "compose plugin is v2.17.3; 2.24 or later is needed", "newer"),
        ({"daemon": None}, "docker's daemon does not answer: Cannot connect", "systemctl start docker"),
        ({"daemon": "20.10.24"}, "docker's daemon is 20.10.24; 25 or later is needed", "Docker Engine 25"),
        ({"images": []}, "there is no image triune-cpu:0.1.0", "make image-cpu"),
    ],
)
def test_what_of_docker_is_missing_is_one_sentence_with_its_remedy(
    checkout: Checkout, played: dict[str, object], problem: str, remedy: str
) -> None:
    checkout.docker.play(**played)
    said = checkout.refuses()
    assert problem in said.partition("hint: ")[0] and remedy in said.partition("hint: ")[2]


def test_an_image_of_ones_own_is_to_be_pulled_by_hand(checkout: Checkout) -> None:
    assert "docker pull mine:1" in checkout.refuses(TRIUNE_IMAGE="mine:1")


def test_the_image_for_gpus_is_asked_for_by_the_target_before_a_build(checkout: Checkout) -> None:
    said = checkout("up", "--where=docker", "--build", "--target=cuda", exit_code=1).stderr
    assert "there is no image triune:0.1.0" in said and "`make image`" in said
    assert not (checkout.folder / "build").exists()


def test_a_target_that_no_image_has_is_said_before_a_build(checkout: Checkout) -> None:
    said = checkout("up", "--where=docker", "--build", "--target=vllm", exit_code=1).stderr
    assert "the images have nothing that runs engines of target vllm" in said and "leave WHERE out" in said
    assert not (checkout.folder / "build").exists()


@pytest.mark.parametrize("variable", PORTS)
def test_a_port_in_use_is_named_with_its_variable(checkout: Checkout, variable: str) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", checkout.ports[variable]))
        holder.listen()
        said = checkout.refuses()
    assert f"port {checkout.ports[variable]} on 127.0.0.1 cannot be used; process {os.getpid()}" in said
    assert f"{variable}=" in said.partition("hint: ")[2]


@pytest.mark.parametrize("ports", [None, "8003", "8003-8004", "9-1", "x"])
def test_several_gateways_need_as_many_ports(checkout: Checkout, ports: str | None) -> None:
    said = {} if ports is None else {"TRIUNE_OPENAI_PORTS": ports}
    assert "TRIUNE_OPENAI_PORTS=" in checkout.refuses(TRIUNE_GATEWAYS="3", **said)
    first = free_port(in_a_row=2)
    checkout.up(TRIUNE_GATEWAYS="2", TRIUNE_OPENAI_PORTS=f"{first}-{first + 1}")


def test_the_port_of_every_gateway_is_tried(checkout: Checkout) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        assert f"port {taken}" in checkout.refuses(TRIUNE_GATEWAYS="2", TRIUNE_OPENAI_PORTS=f"{taken - 1}-{taken}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_keys_that_the_containers_user_cannot_read_or_others_can_have_a_remedy_that_helps(checkout: Checkout) -> None:
    file = checkout.folder / "my keys"
    file.write_text("sk-1\n")
    for mode, owner in ((0o600, 0), (0o644, 0), (0o644, 1000), (0o440, 1000)):
        os.chown(file, owner, 0)
        file.chmod(mode)
        said = checkout.refuses("--api-key-file=my keys")
        assert said.endswith(f"hint: chown 1000 '{file}' && chmod 600 '{file}'\n"), said
    os.chown(file, 1000, -1)
    file.chmod(0o600)
    assert checkout.up("--api-key-file=my keys")["TRIUNE_API_KEY_FILE"] == str(file)


@pytest.mark.parametrize("variable", ["TRIUNE_API_KEYS", "TRIUNE_API_KEYS_FILE"])
def test_keys_that_only_the_environment_has_are_not_lost_silently(checkout: Checkout, variable: str) -> None:
    assert f"{variable} is set" in checkout.refuses(**{variable: "sk-1"})


def test_where_users_have_other_numbers_inside_only_others_matter(checkout: Checkout) -> None:
    checkout.docker.play(security=["name=seccomp,profile=builtin", "name=rootless"])
    file = checkout.folder / "keys"
    file.write_text("sk-1\n")
    file.chmod(0o644)
    said = checkout.refuses("--api-key-file=keys")
    assert "chown" not in said and "chmod 600" in said
    file.chmod(0o600)
    checkout.up("--api-key-file=keys")


def test_keys_that_are_not_there_or_none_are_refused(checkout: Checkout) -> None:
    assert "No such file" in checkout.refuses("--api-key-file=nowhere")
    assert "it is no file" in checkout.refuses("--api-key-file=repository")
    file = checkout.folder / "keys"
    file.write_text("# none yet\n")
    for_containers(file)
    assert "holds no API key" in checkout.refuses("--api-key-file=keys")


def test_a_repository_that_is_none_or_cannot_be_read_inside_is_refused(checkout: Checkout) -> None:
    (checkout.folder / "empty").mkdir()
    assert "there is no model repository in empty" in checkout.refuses("--repository=empty").replace(f"{checkout.folder}/", "")
    assert "no model repository at nowhere" in checkout.refuses("--repository=nowhere")
    engine = checkout.repository / "generate" / "1" / "engine.json"
    engine.chmod(0o600)
    if os.geteuid() != 1000:
        said = checkout.refuses()
        assert str(engine) in said and f"chmod -R a+rX {checkout.repository}" in said


@pytest.mark.parametrize(
    ("memory", "problem"), [("100m", "TRIUNE_MEMORY is 100m; the server needs"), ("much", "expected a size")]
)
def test_a_limit_that_no_server_starts_in_is_refused_before_a_build(checkout: Checkout, memory: str, problem: str) -> None:
    assert problem in checkout.refuses(TRIUNE_MEMORY=memory)
    said = checkout("up", "--where=docker", "--build", "--model=smollm2-135m", exit_code=1, TRIUNE_MEMORY=memory)
    assert problem in said.stderr and not (checkout.folder / "build").exists()


def test_the_limit_is_compared_with_the_engine(checkout: Checkout) -> None:
    weights = checkout.repository / "generate" / "1" / "model.data"
    with weights.open("wb") as file:
        file.truncate(1 << 30)
    said = checkout.refuses(TRIUNE_MEMORY="1g")
    assert "the server needs 1280m for this engine" in said and "TRIUNE_MEMORY=3g" in said
    checkout.up(TRIUNE_MEMORY="2g")


def test_a_limit_that_full_slots_outgrow_is_noted(checkout: Checkout) -> None:
    folder = checkout.repository / "generate" / "1"
    manifest = EngineManifest.load(folder)
    dataclasses.replace(manifest, cache=(CacheTensor(name="0.key", heads=8, dim=4096),)).save(folder)
    done = checkout(*checkout.asked(), TRIUNE_MEMORY="1g")
    assert "note: with every slot full the server needs 5g" in done.stderr


def test_too_little_shared_memory_is_refused(checkout: Checkout) -> None:
    assert "TRIUNE_SHM is 1m" in checkout.refuses(TRIUNE_SHM="1m")


def failed(checkout: Checkout, state: dict[str, object], logs: str, *, event: dict[str, object] | None = None) -> str:
    """What is said of a stack whose server does not start; nothing of it is left."""
    attributes = {"name": "triune-server-1", **({"exitCode": "137"} if event is None else event)}
    events = [{"Action": "die", "Actor": {"Attributes": attributes}}] if event != {} else []
    checkout.docker.play(
        up=1, said="container triune-server-1 is unhealthy\n", states={"server": state}, events=events,
        logs={"triune-server-1": logs, "triune-gateway-1": "waiting\n"},
    )  # fmt: skip
    said = checkout(*checkout.asked(), exit_code=1).stderr
    assert checkout.docker.containers == [] and not (checkout.folder / "build" / "run" / "stack.json").exists()
    log = checkout.folder / "build" / "run" / "stack.log"
    assert log.exists(), said
    assert logs.strip() in log.read_text()
    return said


def test_a_server_that_is_killed_for_its_memory_names_the_limit(checkout: Checkout) -> None:
    said = failed(checkout, {"Status": "restarting", "ExitCode": 137}, "starting\n")
    assert "triune-server-1 was killed (137)" in said and "16g" in said and "TRIUNE_MEMORY=" in said.partition("hint: ")[2]


def test_a_server_that_ends_says_how_and_its_last_words(checkout: Checkout) -> None:
    logs = "".join(f"line {n}\n" for n in range(20)) + "error: no engine\n"
    said = failed(checkout, {"Status": "exited", "ExitCode": 1}, logs, event={"exitCode": "1"})
    assert "triune-server-1 ended with code 1:\n" in said and "  error: no engine\n" in said and "line 3\n" not in said
    assert "stack.log" in said.partition("hint: ")[2]


def test_a_server_that_runs_and_is_not_healthy_is_told_so(checkout: Checkout) -> None:
    said = failed(checkout, {"Status": "running", "Health": {"Status": "unhealthy"}}, "still loading\n", event={})
    assert "triune-server-1 does not become healthy:\n  still loading" in said


def test_what_docker_itself_cannot_do_is_its_last_line(checkout: Checkout) -> None:
    checkout.docker.play(up=1, said='could not select device driver "nvidia" with capabilities: [[gpu]]\n')
    assert "NVIDIA Container Toolkit" in checkout(*checkout.asked(), exit_code=1).stderr
    checkout.docker.play(said="progress\n\nsome other reason\n\n")
    said = checkout(*checkout.asked(), exit_code=1).stderr
    assert said.startswith("error: docker could not start the containers: some other reason\n")


def test_ctrl_c_leaves_nothing_half_started(checkout: Checkout) -> None:
    checkout.docker.play(up="ctrl-C")
    checkout(*checkout.asked(), exit_code=130)
    assert checkout.docker.calls("down") and not (checkout.folder / "build" / "run" / "stack.json").exists()


def test_a_stack_that_served_the_same_is_not_taken_down_by_a_second_up_that_fails(checkout: Checkout) -> None:
    checkout.up()
    before = checkout.docker.containers
    checkout.docker.play(up=1, said="a moment's trouble\n")
    checkout(*checkout.asked(), exit_code=1)
    assert len(checkout.docker.containers) == len(before) and not checkout.docker.calls("down")


def test_a_daemon_that_is_gone_is_said_where_a_stack_was_started_and_else_not(checkout: Checkout) -> None:
    checkout.up()
    checkout.docker.play(daemon=None)
    assert "docker cannot be asked what runs" in checkout("status", exit_code=1).stderr
    shutil.rmtree(checkout.folder / "build")
    assert checkout("status", exit_code=3).stdout.startswith("no server is running")


def test_the_state_of_a_stack_keeps_no_key(checkout: Checkout) -> None:
    file = checkout.folder / "keys"
    file.write_text("sk-secret\n")
    for_containers(file)
    checkout.up("--api-key-file=keys", TRIUNE_API_KEYS="sk-other")
    text = (checkout.folder / "build" / "run" / "stack.json").read_text()
    assert not re.search("sk-", text) and json.loads(text)["options"]["api_key_file"] == str(file)


def test_a_repository_elsewhere_takes_the_place_of_a_model(checkout: Checkout) -> None:
    other = fake_repository(checkout.folder / "other one")
    (checkout.folder / "triune.toml").write_text('model = "smollm2-135m"\n')
    assert checkout.up(f"--repository={other}")["TRIUNE_REPOSITORY"] == str(other)
