"""The front over TLS: what passes, which handshakes do not, a certificate that is renewed. Run: pytest tests/gateway/kserve"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fakes.kserve import Front, front, post, status
from support.certificates import LOCAL, Authority, Pair
from triune_gateway.tls import Tls

PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.issue("front", *LOCAL)


def served(authority: Authority, pair: Pair, test: Callable[[Front, Tls], Awaitable[None]], **bounds: float) -> None:
    """Run a test of a front with that certificate."""

    async def run() -> None:
        tls = Tls(pair.certificate, pair.key)
        async with front(tls=tls, **bounds) as running:
            running.trusted = ssl.create_default_context(cafile=authority.file)
            await test(running, tls)

    asyncio.run(run())


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not reached():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def plain(running: Front, sent: bytes = b"") -> AsyncIterator[asyncio.StreamReader]:
    """A connection that has sent some bytes, and no TLS of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(sent)
    try:
        yield reader
    finally:
        writer.close()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What comes before a connection ends, however it does."""
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE_S)
    except ConnectionError:
        return b""


def client_hello() -> bytes:
    out = ssl.MemoryBIO()
    shaking = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        shaking.do_handshake()
    return out.read()


def test_requests_pass_as_they_do_without_and_what_follows_on_a_connection_too(authority: Authority, pair: Pair) -> None:
    async def test(running: Front, tls: Tls) -> None:
        reader, writer = await running.open()
        for _ in range(2):
            writer.write(post(b'{"text_input":"x"}', close=False))
            assert status(await asyncio.wait_for(reader.readuntil(b"{}"), PATIENCE_S)) == 200
        writer.close()
        assert [body for _, body in running.seen] == [b'{"text_input":"x"}'] * 2
        await until(lambda: not running.shared.connections)

    served(authority, pair, test)


def test_nothing_but_http_1_1_and_no_tls_before_1_2(authority: Authority, pair: Pair) -> None:
    async def test(running: Front, tls: Tls) -> None:
        assert running.trusted is not None
        running.trusted.set_alpn_protocols(["h2", "http/1.1"])
        _, writer = await running.open()
        shaken = writer.get_extra_info("ssl_object")
        assert shaken.selected_alpn_protocol() == "http/1.1" and shaken.version() == "TLSv1.3"
        writer.close()
        running.trusted.maximum_version = ssl.TLSVersion.TLSv1_2
        _, writer = await running.open()
        writer.close()
        running.trusted.minimum_version = running.trusted.maximum_version = ssl.TLSVersion.TLSv1_1
        running.trusted.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(OSError):
            await running.open()

    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        served(authority, pair, test)


def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered(authority: Authority, pair: Pair) -> None:
    async def test(running: Front, tls: Tls) -> None:
        assert running.trusted is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        came, out = ssl.MemoryBIO(), ssl.MemoryBIO()
        shaking = running.trusted.wrap_bio(came, out, server_hostname="localhost")
        while True:
            try:
                shaking.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(out.read())
                came.write(await reader.read(65536))
        shaking.write(post())
        writer.write(out.read())  # both in one
        while True:
            came.write(await asyncio.wait_for(reader.read(65536), PATIENCE_S))
            try:
                assert status(shaking.read()) == 200
                break
            except ssl.SSLWantReadError:  # tickets came first
                continue
        writer.close()

    served(authority, pair, test)


@pytest.mark.parametrize("said", ["nothing", "half", "plain"])
def test_who_does_not_shake_hands_in_time_is_left(authority: Authority, pair: Pair, said: str) -> None:
    async def test(running: Front, tls: Tls) -> None:
        sent = {"nothing": b"", "half": client_hello()[:40], "plain": post()}[said]
        async with plain(running, sent) as reader:
            await ended(reader)
        await until(lambda: not running.shared.connections)
        assert not running.seen and status(await running.exchange(post())) == 200

    served(authority, pair, test, head_s=0.3)


def test_handshakes_count_as_connections_and_make_room_like_others(authority: Authority, pair: Pair) -> None:
    async def test(running: Front, tls: Tls) -> None:
        async with plain(running, client_hello()), plain(running) as first, plain(running):
            await until(lambda: len(running.shared.connections) == 3)
            async with plain(running) as another:
                assert await ended(another) == b""
            assert len(running.shared.connections) == 3, "those that are there have hardly had time"
            for number, one in enumerate(sorted(running.shared.connections, key=lambda one: one.waits_since or 0.0)):
                one.waits_since = time.monotonic() - 10 + number
            assert status(await running.exchange(post())) == 200, "one has made room"
            assert len(running.shared.connections) <= 3
            await asyncio.wait({asyncio.ensure_future(ended(first))}, timeout=0)
        await until(lambda: not running.shared.connections)

    served(authority, pair, test, connections=3, head_s=60)


def test_a_refusal_arrives_though_the_client_goes_on_sending(authority: Authority, pair: Pair) -> None:
    async def test(running: Front, tls: Tls) -> None:
        def send_all_then_read() -> bytes:
            assert running.trusted is not None
            plain = socket.create_connection(("127.0.0.1", running.port), PATIENCE_S)
            with plain, running.trusted.wrap_socket(plain, server_hostname="localhost") as over:
                over.sendall(post(b"x" * 4_000_000))
                return over.recv(65536)

        assert status(await asyncio.to_thread(send_all_then_read)) == 413
        await until(lambda: not running.shared.connections)

    served(authority, pair, test, body_bytes=1000)


async def served_certificate(running: Front) -> str:
    """The name in the certificate that a new connection sees."""
    _, writer = await running.open()
    names = [name for _, name in writer.get_extra_info("peercert")["subjectAltName"]]
    writer.close()
    return str(names[0])


def test_a_renewed_certificate_is_served_to_new_connections_and_old_ones_go_on(authority: Authority, pair: Pair) -> None:
    async def test(running: Front, tls: Tls) -> None:
        assert running.trusted is not None
        running.trusted.check_hostname = False
        reader, writer = await running.open()
        assert await served_certificate(running) == "localhost"
        pair.become(authority.issue("renewed", "DNS:renewed.example"))
        assert await served_certificate(running) == "localhost", "nobody has looked yet"
        watching = asyncio.create_task(tls.watch(0.01))
        async with asyncio.timeout(PATIENCE_S):
            while await served_certificate(running) != "renewed.example":
                await asyncio.sleep(0.01)
        watching.cancel()
        writer.write(post())
        assert status(await asyncio.wait_for(reader.read(), PATIENCE_S)) == 200

    served(authority, pair, test)


def test_what_is_half_renewed_or_broken_is_not_taken(
    authority: Authority, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    tls, renewed = Tls(pair.certificate, pair.key), authority.issue("later", "DNS:later.example")
    before = tls.loaded
    with caplog.at_level(logging.INFO, "triune_gateway.tls"):
        pair.certificate.write_bytes(renewed.certificate.read_bytes())
        for _ in range(3):
            tls.look()
        assert tls.loaded is before
        assert [record.levelname for record in caplog.records] == ["WARNING"], "once, not every minute"
        assert f"the key in {pair.key} does not belong" in caplog.text
        pair.key.write_bytes(renewed.key.read_bytes())
        tls.look()
        assert tls.loaded.certificate.names == ("later.example",)
        pair.certificate.unlink()
        tls.look()
        assert tls.loaded.certificate.names == ("later.example",) and "No such file" in caplog.text


def test_a_link_that_points_elsewhere_is_a_renewal(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    renewed = authority.issue("linked", "DNS:linked.example")
    links = tmp_path / "live.pem", tmp_path / "live.key"
    links[0].symlink_to(pair.certificate)
    links[1].symlink_to(pair.key)
    tls = Tls(*links)
    for link, file in zip(links, (renewed.certificate, renewed.key), strict=True):
        beside = tmp_path / "beside"
        beside.symlink_to(file)
        beside.replace(link)
    tls.look()
    assert tls.loaded.certificate.names == ("linked.example",)
