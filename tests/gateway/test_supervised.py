"""The gateway among the server's processes: its command line, its port, its end.

Run: pytest tests/gateway/test_supervised.py
"""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path

import pytest

from fakes.repository import fake_repository
from support.real_server import free_port
from triune_server.errors import ServerError
from triune_server.gateway import Gateway, gateway_command, is_gateway_ready
from triune_server.launcher import check_ports
from triune_server.options import ServerOptions


@pytest.fixture
def options(tmp_path: Path) -> ServerOptions:
    ports = {name: free_port() for name in ("http_port", "grpc_port", "metrics_port", "openai_port")}
    return ServerOptions(repository=fake_repository(tmp_path / "repository"), **ports)


def test_it_is_told_where_the_server_is_and_what_the_model_is_called(options: ServerOptions) -> None:
    command = gateway_command(options)
    assert f"--grpc-url=127.0.0.1:{options.grpc_port}" in command
    assert f"--port={options.openai_port}" in command
    assert any(argument.startswith("--alias=") and argument != "--alias=" for argument in command)


def test_its_port_is_checked_like_the_others(options: ServerOptions) -> None:
    check_ports(options)
    with socket.create_server(("127.0.0.1", options.openai_port)), pytest.raises(ServerError) as caught:
        check_ports(options)
    assert caught.value.hint is not None and "OPENAI_PORT=" in caught.value.hint


def test_port_zero_is_no_port(options: ServerOptions) -> None:
    assert "OPENAI_PORT" not in dataclasses.replace(options, openai_port=0).ports


def test_one_that_cannot_start_says_why(options: ServerOptions, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", options.openai_port)):
        gateway = Gateway(options, tmp_path / "log")
        with pytest.raises(ServerError, match="address already in use"):
            gateway.wait_ready(30)
    assert gateway.problem() is not None


def test_it_waits_for_the_server_and_ends_when_told(options: ServerOptions, tmp_path: Path) -> None:
    gateway = Gateway(options, tmp_path / "log")
    with pytest.raises(ServerError, match="was not ready"):
        gateway.wait_ready(2)  # nothing is behind it
    gateway.wait_ready(2, given_up=lambda: True)
    assert gateway.problem() is None
    assert not is_gateway_ready(options)
    gateway.stop()
    assert gateway.process.poll() is not None
