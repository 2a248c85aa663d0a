"""What the server is started with, and which ports it may use. Run: pytest tests/server/test_launcher.py"""

from __future__ import annotations

import dataclasses
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fakes.runtime import make_manifest
from fakes.server import options
from support.real_server import free_port
from triune_gateway import bearer
from triune_runtime.options import declared
from triune_server.binaries import Binaries
from triune_server.errors import ServerError
from triune_server.front import front_command
from triune_server.gateway import gateway_command
from triune_server.given import given
from triune_server.inside import Inside
from triune_server.launcher import check_ports, command, environment
from triune_server.options import ServerOptions
from triune_server.threads import threads

BINARIES = Binaries(Path("/s/bin/tritonserver"), Path("/s/backends"), (Path("/s/libs"), Path("/p/lib")), Path("/e/bin"))


INSIDE = Inside(Path("/t"))


def arguments(given: ServerOptions, prefix: str = "one_", inside: Inside | None = INSIDE) -> dict[str, str]:
    program, *rest = command(BINARIES, given, prefix, inside)
    assert program == "/s/bin/tritonserver"
    return dict(a.removeprefix("--").split("=", 1) for a in rest if "=" in a and not a.startswith("--backend-config"))


@pytest.fixture
def held() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield int(holder.getsockname()[1])


def failure(given: ServerOptions) -> tuple[str, str]:
    with pytest.raises(ServerError) as caught:
        check_ports(given)
    assert caught.value.hint is not None
    return str(caught.value.args[0]), caught.value.hint


def test_triton_s_http_listens_where_nobody_else_can_reach_it() -> None:
    given = arguments(dataclasses.replace(options(1111, 2222, 3333), host="0.0.0.0"))
    assert (given["http-address"], given["metrics-address"]) == ("unix:/t/http", "unix:/t/metrics")
    assert not {"http-port", "metrics-port"} & given.keys()


def test_triton_s_control_is_closed_by_a_secret_of_this_start() -> None:
    given = arguments(options(1111, 2222, 3333))
    what, _, secret = given["grpc-restricted-protocol"].partition(":")
    assert what == "model-repository,shared-memory,trace,logging"
    assert given["http-restricted-api"] == f"shared-memory,trace,logging:{secret}"
    assert secret.startswith("triune-control=") and len(secret) > 50
    assert Inside(Path("/t")).closed != Inside(Path("/t")).closed, "every start has a secret of its own"
    assert INSIDE.secret not in repr(INSIDE)


def test_every_port_and_address_is_handed_on_without_a_front() -> None:
    given = arguments(options(1111, 2222, 3333), inside=None)
    assert (given["http-port"], given["grpc-port"], given["metrics-port"]) == ("1111", "2222", "3333")
    assert {given[f"{kind}-address"] for kind in ("http", "grpc", "metrics")} == {"127.0.0.1"}
    assert given["backend-directory"] == "/s/backends"


def test_grpc_connections_are_replaced_when_asked() -> None:
    asked = ServerOptions(repository=Path("none"), grpc_connection_s=20)
    assert arguments(asked)["grpc-max-connection-age"] == "20000", "milliseconds"
    assert "grpc-max-connection-age" not in arguments(ServerOptions(repository=Path("none")))


def test_only_this_machine_is_served_unless_asked_otherwise() -> None:
    assert ServerOptions(repository=Path("none")).host == "127.0.0.1"
    everywhere = dataclasses.replace(ServerOptions(repository=Path("none")), host="0.0.0.0")
    assert arguments(everywhere, inside=None)["http-address"] == "0.0.0.0"
    assert everywhere.http_url == "http://127.0.0.1:8000"  # what a client on this machine can use


def test_each_port_listens_on_its_own_address_or_else_on_the_one_of_all() -> None:
    asked = ServerOptions(repository=Path("none"), host="127.0.0.2", openai_host="0.0.0.0", grpc_host="127.0.0.3")
    front, api = front_command(asked, INSIDE), gateway_command(asked)
    assert {"--http-host=127.0.0.2", "--metrics-host=127.0.0.2"} <= set(front) and "--host=0.0.0.0" in api
    assert arguments(asked)["grpc-address"] == "127.0.0.3"
    assert (asked.http_url, asked.openai_url) == ("http://127.0.0.2:8000", "http://127.0.0.1:8003")
    assert asked.grpc_url == "127.0.0.3:8001"
    message, hint = failure(dataclasses.replace(asked, grpc_host="no such host"))
    assert "no such host is no IPv4 address" in message and "--grpc-host" in hint and "GRPC_HOST=" in hint


def test_with_tls_grpc_is_the_front_s_too_and_everybody_is_told_so() -> None:
    asked = ServerOptions(repository=Path("none"), tls_cert=Path("c"), tls_key=Path("k"), grpc_connection_s=20)
    assert arguments(asked)["grpc-address"] == "unix:/t/grpc"
    files = {"--tls-cert=c", "--tls-key=k"}
    assert files | {"--grpc-port=8001", "--grpc-connection-s=20"} <= set(front_command(asked, INSIDE))
    assert files | {f"--grpc-url={INSIDE.grpc}"} <= set(gateway_command(asked, inside=INSIDE))
    assert {asked.http_url, asked.metrics_url, asked.openai_url, asked.grpc_url} == {
        "https://127.0.0.1:8000", "https://127.0.0.1:8002/metrics", "https://127.0.0.1:8003", "grpcs://127.0.0.1:8001",
    }  # fmt: skip


def test_a_relative_repository_is_made_absolute() -> None:
    assert arguments(ServerOptions(repository=Path("some/where")))["model-repository"] == str(Path("some/where").absolute())


def test_two_servers_share_no_memory() -> None:
    one, two = (set(command(BINARIES, ServerOptions(repository=Path("none")), prefix, INSIDE)) for prefix in ("one_", "two_"))
    assert one ^ two == {f"--backend-config=python,shm-region-prefix-name={prefix}" for prefix in ("one_", "two_")}


def test_stubs_find_this_python_and_libraries_come_before_the_user_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/mine")
    options = ServerOptions(repository=Path("none"))
    found = environment(BINARIES, options)
    assert found["LD_LIBRARY_PATH"] == "/s/libs:/p/lib:/mine"
    assert found["PATH"].split(":")[0] == "/e/bin"
    monkeypatch.delenv("LD_LIBRARY_PATH")
    assert environment(BINARIES, options)["LD_LIBRARY_PATH"] == "/s/libs:/p/lib"  # an empty entry would be the current folder


def test_free_ports_asked_for_before_they_are_bound_differ() -> None:
    assert len({free_port() for _ in range(1000)}) == 1000


def test_free_ports_are_accepted() -> None:
    check_ports(options(free_port(), free_port(), free_port()))


@pytest.mark.parametrize("which", range(3))
def test_a_port_in_use_names_its_variable_and_its_holder(held: int, which: int) -> None:
    ports = [free_port(), free_port(), free_port()]
    ports[which] = held
    message, hint = failure(options(*ports))
    assert f"port {held} on 127.0.0.1 cannot be used" in message
    assert f"process {psutil.Process().pid}" in message
    assert ("HTTP_PORT=", "GRPC_PORT=", "METRICS_PORT=")[which] in hint


def test_two_uses_of_one_port_are_refused() -> None:
    port = free_port()
    message, hint = failure(options(port, free_port(), port))
    assert message == f"HTTP_PORT and METRICS_PORT are both {port}"
    assert "METRICS_PORT=" in hint


def test_the_port_that_a_hint_offers_exists() -> None:
    _, hint = failure(options(65_500, 65_500, free_port()))
    assert 1 <= int(hint.rpartition("=")[2]) <= 65_535


def test_an_address_of_no_machine_is_not_taken_for_a_port() -> None:
    message, hint = failure(dataclasses.replace(ServerOptions(repository=Path("none")), host="no such host"))
    assert "no such host is no IPv4 address" in message
    assert "--host" in hint


def test_prefix_caching_is_told_to_the_models_and_is_on_or_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIUNE_PREFIX_CACHING", "off")  # as make says it, which the options have taken in
    said = [environment(BINARIES, ServerOptions(repository=Path("none"), prefix_caching=one)) for one in ("on", "off")]
    assert [one["TRIUNE_PREFIX_CACHING"] for one in said] == ["on", "off"]
    with pytest.raises(ServerError, match="prefix_caching is 'maybe'; it can be on or off"):
        ServerOptions(repository=Path("none"), prefix_caching="maybe")


def test_no_secret_reaches_the_stubs_and_what_they_need_does(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "TRIUNE_API_KEYS",
        "TRIUNE_API_KEYS_FILE",
        "TRIUNE_API_KEY_FILE",
        "AWS_SECRET_ACCESS_KEY",
        "HF_TOKEN",
        "VLLM_API_KEY",
        "OTHER",
    ):
        monkeypatch.setenv(name, "secret")
    needed = (
        "CUDA_VISIBLE_DEVICES", "LC_ALL", "ORT_LOG", "TMPDIR", "TRIUNE_ANYTHING", "https_proxy",
        "NCCL_NVLS_ENABLE", "GLOO_SOCKET_IFNAME", "VLLM_USE_FLASHINFER_SAMPLER", "TORCH_SYMM_MEM_DISABLE_MULTICAST",
    )  # fmt: skip
    for name in needed:
        monkeypatch.setenv(name, "needed")
    found = environment(BINARIES, ServerOptions(repository=Path("none")))
    assert "secret" not in found.values()
    assert {name for name, value in found.items() if value == "needed"} == set(needed)
    assert {"TRIUNE_API_KEYS", "TRIUNE_API_KEYS_FILE"} <= given(os.environ, keys=True).keys(), "who asks for keys knows them"


@pytest.mark.parametrize(
    ("given", "forwarded"),
    [
        ({}, ()),
        ({"fair_share": "12"}, ("x-triune-client",)),
        ({"otlp": "http://c:4318"}, ("traceparent", "TraceState")),
        ({"fair_share": "on", "otlp": "http://c:4318"}, ("traceparent", "TraceState", "x-triune-client")),
    ],
)
def test_headers_become_parameters_only_where_somebody_reads_them(given: dict[str, str], forwarded: tuple[str, ...]) -> None:
    asked = arguments(dataclasses.replace(ServerOptions(repository=Path("none")), **given))
    for protocol in ("http", "grpc"):
        pattern = asked.get(f"{protocol}-header-forward-pattern", "(?!)")
        sent = ("traceparent", "TraceState", "x-triune-client", "X-Triune-Client", "authorization")
        assert tuple(name for name in sent if re.search(pattern, name)) == forwarded
    assert {bearer.CLIENT, declared.CLIENT} == {"x-triune-client"}


def test_the_engine_is_told_how_clients_share() -> None:
    on = environment(BINARIES, ServerOptions(repository=Path("none"), fair_share="3"))
    assert on["TRIUNE_FAIR_SHARE"] == "3"
    assert environment(BINARIES, ServerOptions(repository=Path("none")))["TRIUNE_FAIR_SHARE"] == "off"
    for wrong in ("0", "-1", "some", ""):
        with pytest.raises(ServerError, match="how many slots"):
            ServerOptions(repository=Path("none"), fair_share=wrong)


@pytest.mark.parametrize(("sequences", "expected"), [((), 64), ((4,), 64), ((256,), 304), ((4, 100, 30), 148)])
def test_each_sequence_has_one_of_triton_s_threads_and_some_are_left(
    tmp_path: Path, sequences: tuple[int, ...], expected: int
) -> None:
    for number, most in enumerate(sequences):
        folder = tmp_path / ("generate" if not number else f"model{number}__generate") / "1"
        folder.mkdir(parents=True)
        make_manifest(max_sequences=most).save(folder)
    assert threads(tmp_path) == expected
    there = dataclasses.replace(options(1111, 2222, 3333), repository=tmp_path)
    assert f"--backend-config=python,thread-pool-size={expected}" in command(BINARIES, there, "one_", INSIDE)
    assert environment(BINARIES, there)["TRIUNE_THREADS"] == str(expected)
