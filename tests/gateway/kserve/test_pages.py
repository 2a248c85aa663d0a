"""Web pages of others, keys, and who may do without. Run: pytest tests/gateway/kserve"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from fakes.kserve import front, post, status
from triune_gateway.origins import foreign, is_loopback

NO_CORS = (b"Content-Type: text/plain;charset=UTF-8", b"Origin: https://evil.example", b"Sec-Fetch-Site: cross-site",
           b"Sec-Fetch-Mode: no-cors")  # fmt: skip


def asked(sent: bytes, *keys: str, host: str = "127.0.0.1") -> int:
    async def run() -> int:
        async with front(keys=keys, host=host) as running:
            found = status(await running.exchange(sent))
            assert len(running.seen) == (found == 200)
            return found

    return asyncio.run(run())


@pytest.mark.parametrize("headers", [NO_CORS, NO_CORS[:2], NO_CORS[2:3], (b"Origin: null",), (b"Sec-Fetch-Site: same-site",)])
def test_a_page_of_another_site_is_refused(headers: tuple[bytes, ...]) -> None:
    assert asked(post(b"[" * 100_000, *headers)) == 403


@pytest.mark.parametrize(
    "name", [b"evil.example", b"evil.example:8000", b"127.0.0.1.evil.example", b"localhost.evil", b"10.0.0.1"]
)
def test_a_name_that_was_made_to_mean_this_machine_is_refused(name: bytes) -> None:
    sent = post().replace(b"Host: localhost", b"Host: " + name)
    assert asked(sent) == 403
    assert asked(sent, host="0.0.0.0") == 200, "a network calls this machine by many names"


@pytest.mark.parametrize("name", [b"localhost", b"LOCALHOST:8000", b"127.0.0.1:8000", b"[::1]:8000", b"127.1.2.3"])
def test_this_machine_s_own_names_are_served(name: bytes) -> None:
    assert asked(post().replace(b"Host: localhost", b"Host: " + name)) == 200


def test_a_page_of_its_own_is_served() -> None:
    own = post(b"{}", b"Origin: http://localhost:8000", b"Sec-Fetch-Site: same-origin")
    assert asked(own.replace(b"Host: localhost", b"Host: localhost:8000")) == 200
    assert asked(post(b"{}", b"Origin: http://localhost:9000")) == 403, "another port is another origin"


def test_pages_that_may_call_are_named() -> None:
    headers = {b"host": b"localhost", b"origin": b"https://a.example", b"sec-fetch-site": b"cross-site"}
    assert foreign(headers, "127.0.0.1", ["https://a.example"]) is None
    assert foreign(headers, "127.0.0.1", ["*"]) is None
    assert "https://a.example" in str(foreign(headers, "127.0.0.1", ["https://b.example"]))


def test_loopback_is_what_only_this_machine_reaches() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.9.9", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org")))


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ((), 401), ((b"Authorization: Bearer wrong",), 401), ((b"Authorization: Basic one",), 401),
        ((b"Authorization: Bearer",), 401),
        ((b"Authorization: Bearer one",), 200), ((b"authorization: bearer two",), 200), ((b"X-Api-Key: two",), 200),
        ((b"Authorization: Bearer wrong", b"Authorization: Bearer one"), 400),
    ],
)  # fmt: skip
def test_where_there_are_keys_one_is_asked_for(sent: tuple[bytes, ...], found: int) -> None:
    assert asked(post(b"{}", *sent), "one", "two # team") == found


@pytest.mark.parametrize(
    ("path", "open_to_all"),
    [
        ("/v2/health/live", True), ("/v2/health/ready", True), ("/v2/models/m/ready", True),
        ("/v2", False), ("/v2/models/m/config", False), ("/v2/models/stats", False),
    ],
)  # fmt: skip
def test_health_needs_no_key(path: str, open_to_all: bool) -> None:
    sent = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    assert asked(sent, "one") == (200 if open_to_all else 401)


def test_one_line_of_the_log_for_each_request(tmp_path: Path) -> None:
    async def run() -> None:
        async with front(keys=("one # team",), log=tmp_path / "log") as running:
            await running.exchange(post(b'{"text_input":"a secret"}', b"Authorization: Bearer one", b"X-Request-Id: mine"))
            await running.exchange(post(b"{}", b"Authorization: Bearer wrong-key"))
            await running.exchange(b"nonsense\r\n\r\n")

    asyncio.run(run())
    text = (tmp_path / "log").read_text()
    first, second, third = map(json.loads, text.splitlines())
    assert (first["request_id"], first["tenant"], first["status"], first["source"]) == ("mine", "team", 200, "kserve")
    assert (first["method"], first["path"], first["client"]) == ("POST", "/v2/models/triune/generate", "127.0.0.1")
    assert 0 < first["first_chunk_s"] <= first["seconds"]
    assert (second["status"], third["status"]) == (401, 400)
    assert "secret" not in text and "wrong-key" not in text
