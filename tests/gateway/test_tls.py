"""The gateway over TLS: requests, metrics, and who does not shake hands. Run: pytest tests/gateway/test_tls.py"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable

import httpx
import openai
import pytest

from fakes.ensemble import CHAT, Ensemble
from fakes.gateways import PATIENCE_S, running
from support.certificates import LOCAL, Authority
from triune_gateway.tls import Tls


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def tls(authority: Authority) -> Tls:
    pair = authority.issue("gateway", *LOCAL)
    return Tls(pair.certificate, pair.key)


@pytest.fixture
def trusted(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.file)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def ended(connection: socket.socket) -> bytes:
    """What comes before a connection ends, however it does."""
    try:
        return connection.recv(65536)
    except ConnectionError:
        return b""


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_stream_over_tls_is_the_answer(ensemble: Ensemble, tls: Tls, trusted: ssl.SSLContext) -> None:
    with (
        running(ensemble, tls) as port,
        httpx.Client(verify=trusted) as http,
        openai.OpenAI(base_url=f"https://localhost:{port}/v1", api_key="none", http_client=http, max_retries=0) as client,
    ):
        whole = client.chat.completions.create(**CHAT).choices[0].message.content
        stream = client.chat.completions.create(**CHAT, stream=True)
        assert whole and "".join(event.choices[0].delta.content or "" for event in stream if event.choices) == whole


def test_metrics_say_when_the_certificate_ends(ensemble: Ensemble, tls: Tls, trusted: ssl.SSLContext) -> None:
    def said() -> float:
        text = httpx.get(f"https://127.0.0.1:{port}/metrics", verify=trusted).text
        return float(text.partition("\ntriune_tls_not_after_seconds ")[2].partition("\n")[0])

    with running(ensemble, tls) as port:
        assert said() == tls.loaded.certificate.not_after
    with running(ensemble) as port:
        assert "triune_tls" not in httpx.get(f"http://127.0.0.1:{port}/metrics").text


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x00", b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"])
def test_who_does_not_shake_hands_in_time_is_left(ensemble: Ensemble, tls: Tls, said: bytes) -> None:
    with running(ensemble, tls, head_timeout_s=0.3) as port, connect(port) as connection:
        connection.sendall(said)
        assert b"HTTP" not in ended(connection)


def test_who_says_nothing_after_the_handshake_is_left(ensemble: Ensemble, tls: Tls, trusted: ssl.SSLContext) -> None:
    with running(ensemble, tls, head_timeout_s=0.3) as port, connect(port) as plain:
        over = trusted.wrap_socket(plain, server_hostname="localhost")
        assert over.recv(100) == b""


def test_handshakes_count_as_connections(ensemble: Ensemble, tls: Tls, trusted: ssl.SSLContext) -> None:
    with running(ensemble, tls, max_connections=2) as port, connect(port) as one, connect(port):

        def full() -> bool:
            with connect(port) as another:
                another.settimeout(0.3)
                try:
                    return another.recv(1) == b""
                except TimeoutError:
                    return False
                except ConnectionError:
                    return True

        until(full)
        one.close()

        def answers() -> bool:
            try:
                return httpx.get(f"https://127.0.0.1:{port}/health/live", verify=trusted).status_code == 200
            except httpx.TransportError:
                return False

        until(answers)
