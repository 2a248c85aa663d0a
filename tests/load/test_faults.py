"""A spoiled answer is found, whatever is wrong with it, and no good one is blamed. Run: pytest tests/load/test_faults.py"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from support.load_grpc import FakeKserve
from support.load_proxy import FAULTS, FaultProxy
from triune_load.core.checks import CHECKS
from triune_load.core.lengths import Lengths
from triune_load.core.workload import Part
from triune_load.run import run
from triune_load.selftest.server import FakeServer
from triune_load.settings import Load, Settings, Target

Json = dict[str, Any]
PART = Part(
    kind="text", input_tokens=Lengths("fixed", (8.0,)), output_tokens=Lengths("fixed", (12.0,)), repeats=1.0, repeated=2
)
SKIP = 1 + PART.repeated  # the look before the load, and the answers to expect


def settings(url: str, protocol: str, **changes: Any) -> Settings:
    return replace(
        Settings(
            target=Target(url=url, protocol=protocol), loads=(Load(kind="streams", value=4),), duration_s=None, sessions=40,
            warmup_s=0.0, parts=(PART,), display=False, stall_s=0.4, timeout_s=5.0,
        ),
        **changes,
    )  # fmt: skip


def through_proxy(protocol: str, fault: str, share: float = 0.3) -> tuple[Json, int]:
    async def scenario() -> tuple[Json, int]:
        fake, port = await FakeServer(0.0, 0.0).listen()
        proxy = FaultProxy(port, fault, share=share, skip=SKIP if fault else 10**9)
        passing, spoiled = await proxy.listen()
        found = await run(settings(f"http://127.0.0.1:{spoiled}", protocol))
        passing.close()
        fake.close()
        return found, proxy.applied

    return asyncio.run(scenario())


def blamed(result: Json) -> set[str]:
    return {v["request"] for step in result["steps"] for v in step["violations_told"]}


EXPECTED = {
    "drop": {"text", "order"}, "drop the last": {"complete", "order", "counts"}, "truncate": {"complete", "text"},
    "repeat": {"text", "order"}, "swap": {"text", "order"}, "corrupt a letter": {"text"}, "corrupt UTF-8": {"utf8"},
    "cut a character": {"utf8"}, "corrupt JSON": {"json"}, "corrupt a count": {"counts", "finish"},
    "another's event": {"identity"}, "cut": {"lost"}, "lose": {"lost"}, "delay": {"stall"},
}  # fmt: skip


@pytest.mark.parametrize("protocol", ["chat", "completions", "responses", "generate-stream"])
@pytest.mark.parametrize("fault", [*FAULTS, "cut", "lose", "delay"])
def test_every_spoiled_stream_is_blamed_and_no_other(protocol: str, fault: str) -> None:
    result, applied = through_proxy(protocol, fault)
    assert applied > 3
    assert len(blamed(result)) == applied, result["steps"][0]["violations_told"]
    assert set(result["steps"][0]["violations"]) & EXPECTED[fault]
    assert not result["verdict"]["passed"]


@pytest.mark.parametrize("protocol", ["chat", "completions", "responses", "generate-stream", "generate", "infer"])
def test_nobody_is_blamed_for_a_clean_run(protocol: str) -> None:
    result, _ = through_proxy(protocol, "")
    assert result["verdict"] == {"passed": True, "reasons": []}
    assert result["repeats_compared"] == 40


def test_a_server_that_closes_connections_after_answers_and_does_not_say_so_is_no_fault() -> None:
    result, _ = through_proxy("chat", "close", share=0.0)
    assert result["verdict"] == {"passed": True, "reasons": []}


def over_grpc(protocol: str, fault: str, **changes: Any) -> tuple[Json, int]:
    async def scenario() -> tuple[Json, int]:
        fake = FakeKserve(fault, skip=1)
        server, port = await fake.listen()
        found = await run(settings(f"127.0.0.1:{port}", protocol, **changes))
        await server.stop(0)
        return found, fake.applied

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    ("fault", "check"),
    [("drop", "order"), ("repeat", "order"), ("swap", "order"), ("corrupt", "json"), ("text", "text"), ("truncate", "complete"),
     ("identity", "identity")],
)  # fmt: skip
def test_every_spoiled_stream_over_grpc_is_blamed_and_no_other(fault: str, check: str) -> None:
    result, applied = over_grpc("kserve-grpc", fault)
    assert applied > 3
    assert len(blamed(result)) == applied, result["steps"][0]["violations_told"]
    assert check in result["steps"][0]["violations"]


@pytest.mark.parametrize("protocol", ["kserve-grpc", "grpc-infer"])
def test_nobody_is_blamed_for_a_clean_run_over_grpc(protocol: str) -> None:
    result, _ = over_grpc(protocol, "")
    assert result["verdict"] == {"passed": True, "reasons": []}
    assert result["steps"][0]["figures"]["latencies"]["queue_ms"]["p50"] == pytest.approx(2.0)


def test_an_error_inside_a_stream_is_a_failure_of_its_kind() -> None:
    result, applied = over_grpc("kserve-grpc", "error")
    (error,) = result["steps"][0]["figures"]["errors"]
    assert (error["kind"], error["count"]) == ("server error", applied)


def test_without_checks_spoiled_streams_pass() -> None:
    result, applied = over_grpc("kserve-grpc", "text", checks=frozenset())
    assert applied > 3 and result["verdict"]["passed"]


def with_metrics(spoil: Callable[[FakeServer], None], **changes: Any) -> Json:
    async def scenario() -> Json:
        fake = FakeServer(0.0, 0.002)
        server, port = await fake.listen()
        url = f"http://127.0.0.1:{port}"
        target = Target(url=url, protocol="chat", metrics_url=f"{url}/metrics")
        watching = asyncio.ensure_future(_after_some_requests(fake, spoil))
        found = await run(settings(url, "chat", target=target, free_within_s=0.5, **changes))
        await watching
        server.close()
        return found

    return asyncio.run(scenario())


async def _after_some_requests(fake: FakeServer, spoil: Callable[[FakeServer], None]) -> None:
    while fake.asked < 20:
        await asyncio.sleep(0.001)
    spoil(fake)


def leak(fake: FakeServer) -> None:
    fake.running += 1


CLIENTS_LEAVE = replace(PART, cancel=0.5, cancel_after=Lengths("uniform", (0.0, 6.0)))


def test_requests_that_are_left_and_freed_are_no_fault() -> None:
    result = with_metrics(lambda fake: None, parts=(CLIENTS_LEAVE,))
    assert result["verdict"] == {"passed": True, "reasons": []}
    assert result["steps"][0]["figures"]["left"] > 5


def test_a_request_that_is_not_freed_is_found() -> None:
    result = with_metrics(leak, parts=(CLIENTS_LEAVE,))
    assert result["steps"][0]["violations"] == {"freed": 1}


def test_the_checks_of_the_table_are_the_checks_there_are() -> None:
    assert set().union(*EXPECTED.values()) | {"freed"} == set(CHECKS)
