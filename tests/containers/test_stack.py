"""The compose stack with who watches it: up when a question can be answered, several gateways, keys, panels, a trace, an alert.

Grafana is not among the services that are started. Run: make test-containers
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from containers.engine import run
from support.otlp_sink import Sink
from support.real_server import ROOT, free_port
from support.watching import KEYS, RECEIVER, Told, hurried, load, values, wait_for_every_panel, wait_until
from triune_client import Client, TriuneError
from triune_client.grpc import GrpcClient

KEY = "sk-of-the-stack"
QUESTION = "What is the capital of France?"
FILES = [f"-f{ROOT}/docker/{name}" for name in ("compose.yaml", "compose.monitoring.yaml")]
STARTED = ("server", "gateway", "prometheus", "alertmanager")
PROJECT = "triune-test"
HOST = "host.docker.internal"  # this machine, as containers call it


@dataclass
class Stack:
    """A running one, and who is told of it."""

    environment: dict[str, str]
    gateways: tuple[int, int]  # their ports
    told: Told
    sink: Sink

    @property
    def prometheus(self) -> str:
        return f"http://127.0.0.1:{self.environment['TRIUNE_PROMETHEUS_PORT']}"


def overridden(folder: Path, told: Told, watchers: dict[str, str]) -> Path:
    """A compose file: stand-ins for images, seconds for what is waited for, and the way to this machine."""
    receiver = f"{HOST}:{told.port}"
    texts = {name: hurried(name) for name in ("prometheus.compose.yml", "triune.rules.yml", "alertmanager.yml")}
    texts["alertmanager.yml"] = texts["alertmanager.yml"].replace(RECEIVER, receiver)
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    mounted = {
        "prometheus": {
            "prometheus.compose.yml": "prometheus/prometheus.yml",
            "triune.rules.yml": "prometheus/triune.rules.yml",
        },
        "alertmanager": {"alertmanager.yml": "alertmanager/alertmanager.yml"},
    }
    services: dict[str, Any] = {name: {"extra_hosts": [f"{HOST}:host-gateway"]} for name in STARTED}
    for name, files in mounted.items():
        volumes = [f"{folder / file}:/etc/{place}:ro" for file, place in files.items()]
        services[name] |= {"image": watchers[name], "volumes": volumes}
    file = folder / "override.yaml"
    file.write_text(json.dumps({"services": services}), "utf-8")
    return file


@pytest.fixture(scope="module")
def stack(
    docker: dict[str, str],
    cpu_image: str,
    watchers: dict[str, str],
    repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """A stack with two gateways, which `--wait` has found healthy."""
    folder = tmp_path_factory.mktemp("stack")
    folder.chmod(0o755)
    keys, told = folder / "keys", Told()
    keys.write_text(f"{KEY}\n{KEYS}", "utf-8")
    keys.chmod(0o444)
    first = free_port(in_a_row=2)
    with Sink("0.0.0.0") as sink, told.listen("0.0.0.0") as receiver:
        said = {
            "TRIUNE_IMAGE": cpu_image, "TRIUNE_REPOSITORY": str(repository), "TRIUNE_API_KEY_FILE": str(keys),
            "TRIUNE_GATEWAYS": "2", "TRIUNE_OPENAI_PORTS": f"{first}-{first + 1}", "TRIUNE_MEMORY": "4g",
            "TRIUNE_GRAFANA_PASSWORD_FILE": str(keys), "TRIUNE_OTLP": f"http://{HOST}:{sink.port}",
            "OTEL_BSP_SCHEDULE_DELAY": "200", "TRIUNE_LOG_FORMAT": "json",
        }  # fmt: skip
        said |= {f"TRIUNE_{name}_PORT": str(free_port()) for name in ("HTTP", "GRPC", "METRICS", "PROMETHEUS", "ALERTMANAGER")}
        environment = docker | said
        compose = ("docker", "compose", "-p", PROJECT, *FILES, f"-f{overridden(folder, told, watchers)}")
        try:
            run(*compose, "up", "--no-build", "--pull=never", "--wait", "--wait-timeout=180", *STARTED, environment=environment)
            yield Stack(environment, (first, first + 1), told, sink)
        finally:
            run(*compose, "down", "--volumes", "--timeout=60", environment=environment)
            receiver.shutdown()
            print("\n".join(["", *told.lines]))


@contextmanager
def openai(port: int) -> Iterator[OpenAI]:
    """OpenAI's own client of a gateway."""
    with httpx.Client(trust_env=False) as direct:
        yield OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0, http_client=direct)


def to_triton(stack: Stack, signal: str) -> None:
    """Send a signal to the server's tritonserver, from inside: after `docker kill` an engine would let the container be."""
    _in_server(stack, f'kill -{signal} "$triton"')


def to_supervisor(stack: Stack, signal: str) -> None:
    """Send a signal to who started tritonserver."""
    _in_server(stack, f'kill -{signal} "$(cut -d" " -f4 "/proc/$triton/stat")"')


def _in_server(stack: Stack, command: str) -> None:
    """Run a command of a shell in the server's container, which knows tritonserver's number as `triton`."""
    known = 'for comm in /proc/[0-9]*/comm; do [ "$(< "$comm")" != tritonserver ] || triton=$(cut -d/ -f3 <<< "$comm"); done'
    run("docker", "exec", f"{PROJECT}-server-1", "bash", "-c", f"{known}; {command}", environment=stack.environment)


def test_up_ends_when_a_question_can_be_answered(stack: Stack) -> None:
    with Client(f"http://127.0.0.1:{stack.environment['TRIUNE_HTTP_PORT']}") as client:
        said = client.chat(QUESTION, max_tokens=16).text
        assert "Paris" in said
    with GrpcClient(f"127.0.0.1:{stack.environment['TRIUNE_GRPC_PORT']}") as grpc:
        assert "".join(chunk.text for chunk in grpc.stream_chat(QUESTION, max_tokens=16)) == said


def test_every_gateway_answers_those_who_have_a_key(stack: Stack) -> None:
    for port in stack.gateways:
        assert httpx.get(f"http://127.0.0.1:{port}/v1/models", timeout=60, trust_env=False).status_code == 401
        with openai(port) as client:
            answer = client.chat.completions.create(
                model="triune", messages=[{"role": "user", "content": QUESTION}], max_tokens=16
            )
        assert "Paris" in str(answer.choices[0].message.content)


def test_a_request_has_one_trace_through_gateway_and_server_and_a_line_in_both_logs(stack: Stack) -> None:
    trace, caller = secrets.token_hex(16), secrets.token_hex(8)
    with openai(stack.gateways[1]) as client:
        client.chat.completions.create(
            model="triune", messages=[{"role": "user", "content": QUESTION}], max_tokens=4,
            extra_headers={"traceparent": f"00-{trace}-{caller}-01", "authorization": "Bearer k1", "x-request-id": "traced"},
        )  # fmt: skip
    stack.sink.wait(lambda: len(stack.sink.of(trace)) >= 7)
    spans = {span.name: span for span in stack.sink.of(trace)}
    front, request = spans.pop("POST /v1/chat/completions"), spans.pop("chat smollm2-135m")
    assert front.parent == caller and request.parent == front.id
    assert spans.keys() == {"tokenize", "queue", "prefill", "decode", "detokenize"}
    assert {span.parent for span in spans.values()} == {request.id}
    logs = [
        run("docker", "logs", name, environment=stack.environment).splitlines()
        for name in (f"{PROJECT}-server-1", f"{PROJECT}-gateway-1", f"{PROJECT}-gateway-2")
    ]
    lines = [json.loads(line) for log in logs for line in log if '"traced' in line]
    assert {line["source"] for line in lines} == {"server", "gateway"}
    assert all(line["trace_id"] == trace and line["completion_tokens"] == 4 for line in lines)
    assert {line.get("tenant") for line in lines} == {None, "alice"}
    assert "France" not in json.dumps(lines)


def test_every_panel_has_data_and_a_killed_server_is_told_and_its_return_too(stack: Stack) -> None:
    def told(status: str) -> int:
        return stack.told.came.count((status, "TriuneDown"))

    over = threading.Event()
    asking = threading.Thread(target=load, args=(f"http://127.0.0.1:{stack.gateways[0]}", over))
    asking.start()
    try:
        wait_for_every_panel(stack.prometheus)
    finally:
        over.set()
        asking.join()
    assert values(stack.prometheus, 'sum(up{job="triune-openai"})') == [2.0], "it has found both gateways"
    # Prometheus may have looked before the server was ready.
    wait_until(lambda: told("firing") == told("resolved"), "what was told of the start is over")
    before = told("firing")
    to_supervisor(stack, "STOP")  # who would start it again at once
    try:
        to_triton(stack, "KILL")
        wait_until(lambda: told("firing") > before, "the receiver is told that the server is down")
    finally:
        to_supervisor(stack, "CONT")  # its child is known until it has looked
    with Client(f"http://127.0.0.1:{stack.environment['TRIUNE_HTTP_PORT']}", max_retries=0) as client:

        def answers() -> bool:
            with suppress(TriuneError):
                return "Paris" in client.chat(QUESTION, max_tokens=16).text
            return False

        wait_until(answers, "the server is back", 60)
    wait_until(lambda: told("resolved") > before, "the receiver is told that it is back", 60)
