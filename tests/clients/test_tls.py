"""Which servers are trusted over TLS, and what is said of the others. Run: pytest tests/clients/test_tls.py"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from support.certificates import LOCAL, PUBLIC, Authority
from triune_client import AsyncClient, Client, ConnectError
from triune_client.__main__ import main
from triune_client.grpc import AsyncGrpcClient, GrpcClient

NAME = PUBLIC[0].removeprefix("DNS:")


class Ready(BaseHTTPRequestHandler):
    """Says to everybody that all is well, and how it was called."""

    called: list[str | None]

    def do_GET(self) -> None:
        self.called.append(self.headers["host"])
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps the test's output clean."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module", params=[None, NAME], ids=["local", "public"])
def served(request: pytest.FixtureRequest, authority: Authority) -> Iterator[tuple[str, str | None]]:
    """The URL of a server, and the name in its certificate where that is another."""
    pair = authority.issue("client", *(LOCAL if request.param is None else PUBLIC))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    Ready.called = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ready)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}", request.param
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_server_is_trusted_by_its_authority_and_its_name(served: tuple[str, str | None], authority: Authority) -> None:
    url, name = served

    async def alone() -> bool:
        async with AsyncClient(url, ca_file=authority.file, server_name=name) as client:
            return await client.ready()

    with Client(url, ca_file=authority.file, server_name=name) as client:
        assert client.ready() and asyncio.run(alone())
        assert Ready.called[-1] == url.removeprefix("https://"), "which is what it is called by"
    for wrong in ("other.example", NAME if name is None else None):
        with Client(url, ca_file=authority.file, server_name=wrong, max_retries=0) as other:
            assert not other.ready()
            with pytest.raises(ConnectError, match=r"the certificate of https://.* is not trusted: .*ca_file"):
                other.models()


def test_the_command_says_of_a_server_that_it_does_not_trust_why(
    served: tuple[str, str | None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", f"--url={served[0]}"]) == 3
    assert "is not trusted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "good", "bad"),
    [
        (Client, "https", "http"),
        (AsyncClient, "https", "http"),
        (GrpcClient, "grpcs", "grpc"),
        (AsyncGrpcClient, "grpcs", "grpc"),
    ],
)
def test_what_is_said_of_tls_needs_a_url_with_it_and_a_file_of_certificates(
    make: Callable[..., Any], good: str, bad: str, authority: Authority, tmp_path: Path
) -> None:
    for said in ({"ca_file": authority.file}, {"server_name": NAME}):
        with pytest.raises(
            ValueError, match=rf"url is '{bad}://localhost:1'; with \w+ expected one that begins with {good}://"
        ):
            make(f"{bad}://localhost:1", **said)
    (tmp_path / "empty.pem").write_text("")
    for file in (tmp_path / "none.pem", tmp_path / "empty.pem", tmp_path):
        with pytest.raises(ValueError, match="which cannot be used"):
            make(f"{good}://localhost:1", ca_file=file)
