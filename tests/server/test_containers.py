"""`triune up --where docker` over a stand-in for docker: what reaches compose. Run: pytest tests/server/test_containers.py"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from support.certificates import LOCAL, Authority, Pair
from support.checkouts import PORTS, Checkout, for_containers
from support.real_server import free_port
from triune_server.command import SETTINGS
from triune_server.containers import OWN
from triune_server.options import ServerOptions

PORTS_BY_NAME = ("http", "grpc", "metrics", "openai")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def keys(checkout: Checkout) -> Path:
    file = checkout.folder / "keys.txt"
    file.write_text("sk-1\n")
    return for_containers(file)


@pytest.fixture
def pair(checkout: Checkout) -> Pair:
    made = Authority(checkout.folder).issue("tls", *LOCAL)
    for file in (made.certificate, made.key):
        for_containers(file)
    return made


def test_what_triune_toml_says_reaches_compose_keys_and_ports_above_all(checkout: Checkout, keys: Path) -> None:
    ports = "\n".join(f"{name.lower()} = {port}" for name, port in checkout.ports.items())
    (checkout.folder / "triune.toml").write_text(
        f'repository = "repository"\napi_key_file = "keys.txt"\ncors = ["https://a.example", "https://b.example"]\n'
        f'name = "mine"\n{ports}\n'
    )
    checkout("up", "--where=docker")
    ((_, said),) = checkout.docker.calls("up")
    assert said["TRIUNE_API_KEY_FILE"] == str(keys) and said["TRIUNE_NAME"] == "mine"
    assert said["TRIUNE_CORS"] == "https://a.example https://b.example"
    assert said["TRIUNE_REPOSITORY"] == str(checkout.repository)
    assert {name: int(said[f"TRIUNE_{name}"]) for name in PORTS} == checkout.ports


def test_every_setting_of_a_server_reaches_compose_or_is_refused(
    checkout: Checkout, keys: Path, pair: Pair, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o777)
    data.chmod(0o777)
    carried = {
        "repository": (str(checkout.repository), {"TRIUNE_REPOSITORY": str(checkout.repository)}),
        "name": ("mine", {"TRIUNE_NAME": "mine"}),
        "host": ("localhost", {"TRIUNE_HOST": "127.0.0.1"}),
        **{f"{name}_host": ("localhost", {f"TRIUNE_{name.upper()}_HOST": "127.0.0.1"}) for name in PORTS_BY_NAME},
        "tls_cert": ("tls.pem", {"TRIUNE_TLS_CERT": str(pair.certificate)}),
        "tls_key": ("tls.key", {"TRIUNE_TLS_KEY": str(pair.key)}),
        **{name.lower(): (str(port), {f"TRIUNE_{name}": str(port)}) for name, port in checkout.ports.items()},
        "api_key_file": ("keys.txt", {"TRIUNE_API_KEY_FILE": str(keys)}),
        "cors": ("*", {"TRIUNE_CORS": "'*'"}),
        "access_log": ("-", {"TRIUNE_ACCESS_LOG": "-"}),
        "responses_file": ("data/of.db", {"TRIUNE_RESPONSES_FOLDER": str(data), "TRIUNE_RESPONSES_NAME": "of.db"}),
        "drain_s": ("300", {"TRIUNE_DRAIN_S": "300", "TRIUNE_GRACE": "315s"}),
        "grpc_connection_s": ("60", {"TRIUNE_GRPC_CONNECTION_S": "60"}),
        "log_format": ("json", {"TRIUNE_LOG_FORMAT": "json"}),
        "log_text": ("on", {"TRIUNE_LOG_TEXT": "on"}),
        "otlp": ("http://collector:4318", {"TRIUNE_OTLP": "http://collector:4318"}),
        "triton_spans": ("on", {"TRIUNE_TRITON_SPANS": "on"}),
        "prefix_caching": ("off", {"TRIUNE_PREFIX_CACHING": "off"}),
        "front": ("off", {"TRIUNE_FRONT": "off"}),
        "insecure": ("on", {}),  # of the ports that are published
        "fair_share": ("3", {"TRIUNE_FAIR_SHARE": "3"}),
        "max_memory": ("9000", {"TRIUNE_MAX_MEMORY": "9000"}),
    }
    assert carried.keys() == {name for name in ServerOptions.__dataclass_fields__ if name != "also"}, "none is forgotten"
    environment = {f"TRIUNE_{name.upper()}": text for name, (text, _) in carried.items()}
    checkout("up", "--where=docker", **environment)
    ((_, said),) = checkout.docker.calls("up")
    for _, expected in carried.values():
        assert expected.items() <= said.items()


def test_compose_hands_on_whatever_it_is_given(checkout: Checkout) -> None:
    said = checkout.up()
    files = "".join((ROOT / "docker" / name).read_text("utf-8") for name in ("compose.yaml", "compose.gpu.yaml"))
    taken = set(re.findall(r"\$\{(TRIUNE_\w+)", files))
    assert {name for name in said if name not in SETTINGS} <= taken, "none ends with compose"
    assert set(OWN) <= taken


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--access-log=log"], "ACCESS_LOG"),
        (["--host=0.0.0.0"], "INSECURE=on"),
        (["--otlp=http://127.0.0.1:4318"], "OTLP"),
        (["--otlp=http://localhost:4318"], "OTLP"),
        (["--responses-file=nowhere/of.db"], "RESPONSES_FILE"),
    ],
)
def test_what_containers_cannot_have_is_refused_by_name(checkout: Checkout, arguments: list[str], names: str) -> None:
    assert names in checkout.refuses(*arguments)


def test_the_gateways_port_alone_may_be_open_to_a_network_and_asks_for_keys(checkout: Checkout, keys: Path) -> None:
    assert "HTTP_HOST is 0.0.0.0, and what containers publish" in checkout.refuses(
        "--http-host=0.0.0.0", f"--api-key-file={keys}"
    )
    assert "0.0.0.0 is open to a network (OPENAI_HOST)" in checkout.refuses("--openai-host=0.0.0.0")
    said = checkout.up("--openai-host=0.0.0.0", f"--api-key-file={keys}")
    assert (said["TRIUNE_OPENAI_HOST"], said["TRIUNE_HTTP_HOST"], said["TRIUNE_HOST"]) == ("0.0.0.0", "", "127.0.0.1")


def test_the_gateways_alone_speak_tls(checkout: Checkout, pair: Pair) -> None:
    tls = [f"--tls-cert={pair.certificate}", f"--tls-key={pair.key}"]
    assert "OPENAI_PORT=0 asks for none" in checkout.refuses("--openai-port=0", *tls)
    told = checkout(*checkout.asked(*tls)).stdout
    for said in (told, checkout("status").stdout):
        assert f"https://127.0.0.1:{checkout.ports['OPENAI_PORT']}/v1" in said
        assert f"http://127.0.0.1:{checkout.ports['HTTP_PORT']}/v2" in said and "--ca-file" not in said
    assert "http://" in checkout("chat", exit_code=3).stderr, "which has no certificate to trust"


def test_the_containers_user_must_be_able_to_read_the_certificate(checkout: Checkout, pair: Pair) -> None:
    if os.geteuid() == 0:
        os.chown(pair.key, 0, 0)
    else:
        pair.key.chmod(0)
    said = checkout.refuses(f"--tls-cert={pair.certificate}", f"--tls-key={pair.key}")
    assert f"user 1000, the containers', cannot read {pair.key}" in said and "chown 1000" in said


def test_several_models_are_refused_by_name(checkout: Checkout) -> None:
    said = checkout("up", "--where=docker", exit_code=1, TRIUNE_MODELS="smollm2-135m r1-nano").stderr
    assert "MODELS asks for 2" in said and not checkout.docker.calls("up")


@pytest.mark.parametrize("where", ["Docker", "podman", ""])
def test_another_place_than_here_and_docker_is_refused(checkout: Checkout, where: str) -> None:
    said = checkout("up", f"--where={where}", exit_code=1).stderr
    assert f"WHERE is {where!r}; it can be here or docker" in said and not checkout.docker.calls()


def test_without_a_port_for_openai_there_is_no_gateway(checkout: Checkout) -> None:
    checkout.up("--openai-port=0")
    assert "--scale=gateway=0" in checkout.docker.calls("up")[-1][0]
    assert "OpenAI" not in checkout("status").stdout
    assert len(checkout.docker.containers) == 1


def test_the_time_to_stop_follows_that_of_requests(checkout: Checkout) -> None:
    assert checkout.up("--drain-s=20")["TRIUNE_GRACE"] == "60s"
    checkout("down")
    assert checkout.up("--drain-s=300", TRIUNE_GRACE="400s")["TRIUNE_GRACE"] == "400s"


def test_the_image_is_the_engines_and_none_is_pulled_or_built(checkout: Checkout) -> None:
    checkout.docker.play(images=["triune-cpu:0.1.0", "triune:0.1.0"])
    assert checkout.up()["TRIUNE_IMAGE"] == "triune-cpu:0.1.0"
    arguments = checkout.docker.calls("up")[-1][0]
    assert {"--no-build", "--pull=never", "--wait"} <= set(arguments)
    assert not [one for one in arguments if "compose.gpu" in one]
    checkout("down")
    file = checkout.repository / "generate" / "1" / "engine.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"target": "cuda"}))
    assert checkout.up()["TRIUNE_IMAGE"] == "triune:0.1.0"
    files = [one for one in checkout.docker.calls("up")[-1][0] if one.startswith("--file=")]
    assert [Path(one).name for one in files] == ["compose.yaml", "compose.gpu.yaml"], "in this order"


def test_what_runs_is_not_replaced_unasked_and_what_is_not_asked_for_stays(checkout: Checkout) -> None:
    checkout.up("--name=mine", TRIUNE_MEMORY="4g")
    other = free_port()
    asked = ["up", "--where=docker", f"--repository={checkout.repository}", f"--http-port={other}"]
    said = checkout(*asked, exit_code=1).stderr
    assert f"asked for: HTTP_PORT={other}\n" in said and "SWITCH=1" in said and len(checkout.docker.calls("up")) == 1
    checkout(*asked, "--switch")
    now = checkout.docker.calls("up")[-1][1]
    assert now["TRIUNE_NAME"] == "mine" and now["TRIUNE_MEMORY"] == "4g" and now["TRIUNE_HTTP_PORT"] == str(other)
    assert "--force-recreate" not in checkout.docker.calls("up")[-1][0]


def test_an_engine_that_was_built_anew_is_mounted_anew(checkout: Checkout) -> None:
    checkout.up()
    checkout.up()
    assert "--force-recreate" not in checkout.docker.calls("up")[-1][0]
    file = checkout.repository / "generate" / "1" / "engine.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"inputs_hash": "another"}))
    checkout.up()
    assert "--force-recreate" in checkout.docker.calls("up")[-1][0], "a mount holds on to the folder that was there"


def test_a_stack_of_another_checkout_is_left_alone(checkout: Checkout) -> None:
    checkout.up()
    theirs = checkout.docker.containers
    for one in theirs:
        one["Config"]["Labels"]["com.docker.compose.project.config_files"] = "/elsewhere/docker/compose.yaml"
    checkout.docker.containers = theirs
    shutil.rmtree(checkout.folder / "build")
    said = checkout.refuses()
    assert "/elsewhere/docker/compose.yaml" in said and "COMPOSE_PROJECT_NAME=triune-2" in said
    assert checkout("down").stdout == "no server is running\n" and checkout.docker.containers == theirs
    checkout.up(COMPOSE_PROJECT_NAME="triune-2")
    assert "--project-name=triune-2" in checkout.docker.calls("up")[-1][0]


def test_a_stack_of_another_run_folder_is_left_alone(checkout: Checkout) -> None:
    checkout.up()
    assert "the compose project triune runs already" in checkout.refuses("--run-folder=other")
    assert checkout("status", "--run-folder=other", exit_code=3).stdout.startswith("no server is running")
    assert checkout("down", "--run-folder=other").stdout == "no server is running\n"
    assert checkout.docker.containers


@pytest.fixture
def served(checkout: Checkout) -> Callable[[str], str]:
    """What a command prints while a stack runs."""
    checkout.up()
    return lambda command: checkout(command).stdout


def test_status_tells_of_the_stack(checkout: Checkout, served: Callable[[str], str]) -> None:
    said = served("status")
    assert said.startswith(f"not ready: {checkout.repository} (in containers of the compose project triune)\n")
    assert "triune-server-1  running, healthy" in said and "triune-gateway-1  running, healthy" in said
    assert f"127.0.0.1:{checkout.ports['HTTP_PORT']}/v2" in said and f"127.0.0.1:{checkout.ports['OPENAI_PORT']}/v1" in said
    found = json.loads(checkout("status", "--json").stdout)
    assert found["ports"] == checkout.ports and found["running"] and found["where"] == "docker"


def test_a_stack_that_compose_alone_started_is_found_too(checkout: Checkout, served: Callable[[str], str]) -> None:
    shutil.rmtree(checkout.folder / "build")
    assert "triune-server-1  running" in served("status")
    assert served("down") == "stopped the containers of triune\n" and not checkout.docker.containers


def test_repository_and_down_know_of_the_stack(checkout: Checkout, served: Callable[[str], str]) -> None:
    assert served("repository") == f"{checkout.repository}\n"
    assert served("down") == "stopped the containers of triune\n"
    assert checkout("status", exit_code=3).stdout == "no server is running; start one with `make up`\n"
    assert not (checkout.folder / "build" / "run" / "stack.json").exists()


def test_logs_are_the_stacks(checkout: Checkout, served: Callable[[str], str], capfd: pytest.CaptureFixture[str]) -> None:
    served("logs")
    assert capfd.readouterr().out == "server-1  | of the stack\n"
    assert "--tail=100" in checkout.docker.calls("logs")[-1][0]


def test_chat_and_load_talk_to_the_stacks_ports(checkout: Checkout, served: Callable[[str], str]) -> None:
    chat = checkout("chat", exit_code=3)
    assert f"127.0.0.1:{checkout.ports['HTTP_PORT']}" in chat.stdout + chat.stderr
    load = checkout("load", "--running", "--streams=1", "--requests=1", exit_code=2)
    assert "no server is running" not in load.stderr and str(checkout.ports["OPENAI_PORT"]) in load.stderr


def test_a_server_here_and_a_stack_are_not_mixed_up(checkout: Checkout) -> None:
    checkout.up()
    for command in ("up", "serve"):
        said = checkout(command, f"--repository={checkout.repository}", exit_code=1).stderr
        assert "is being served in containers (triune)" in said and "make down" in said
    assert "in containers" in checkout("add", f"--repository={checkout.repository}", exit_code=1).stderr
    checkout("down")
    process = psutil.Process()
    state = {"pid": process.pid, "created": process.create_time(), "options": {
        "repository": "r", "host": "127.0.0.1", "http_port": 1, "grpc_port": 2, "metrics_port": 3, "openai_port": 0,
    }}  # fmt: skip
    (checkout.folder / "build" / "run" / "triune.json").write_text(json.dumps(state))
    assert "is being served without containers" in checkout.refuses()
