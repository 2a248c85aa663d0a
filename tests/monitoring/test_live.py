"""A real Prometheus over a real server under load: every panel has data, and a killed server is told and forgotten.

Run: make test-monitoring. Prints what the alerts' receiver was told.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import psutil
import pytest

from support.dashboards import Panel, panels
from support.real_server import REPOSITORY, RealServer, start, stop
from support.watching import ALERTMANAGER, NEEDS, PROMETHEUS, Told, Watch, wait_until

WANTED = os.environ.get("TRIUNE_TEST_MONITORING")
pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(not WANTED, reason="run by `make test-monitoring`"),
]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
# Without data on a machine without GPUs, and without a proxy whose certificate is watched.
ELSEWHERE = ("GPU", "Certificate")


@dataclass
class Scene:
    """A server under load, and who watches it."""

    server: RealServer
    watch: Watch
    told: Told


def ask(server: RealServer, key: str, **more: object) -> None:
    body = {
        "model": "triune",
        "messages": [{"role": "user", "content": "Name three towns by the sea."}],
        "max_tokens": 8,
    }
    headers = {"authorization": f"Bearer {key}", **PARENT}
    url = f"{server.options.openai_url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body | more, headers=headers, timeout=30) as reply:
        for _ in reply.iter_bytes():
            if more.get("max_tokens") == 200:
                return  # leaves in the middle


def load(server: RealServer, over: threading.Event) -> None:
    """Answers of every kind, one after another, until it is over; a server that is away is nothing special."""
    kinds = itertools.cycle(("whole", "stream", "leave", "wrong"))
    for number, kind in enumerate(kinds):
        if over.is_set():
            return
        more = {"whole": {}, "stream": {"stream": True}, "leave": {"stream": True, "max_tokens": 200}, "wrong": {"model": "x"}}
        try:
            ask(server, ("k1", "k2")[number % 3 % 2], **more[kind])
        except httpx.HTTPError:
            over.wait(0.2)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    if PROMETHEUS is None or ALERTMANAGER is None:
        pytest.fail(NEEDS)
    folder = tmp_path_factory.mktemp("watched")
    keys = folder / "keys"
    keys.touch(0o600)
    keys.write_text("k1 # alice\nk2 # bob\n")
    (folder / "run").mkdir()
    (folder / "prometheus").mkdir()
    server = start(folder / "run", REPOSITORY, f"--api-key-file={keys}")
    told, over = Told(), threading.Event()
    receiver = told.listen()
    watch = Watch(folder / "prometheus", told)
    thread = threading.Thread(target=load, args=(server, over))
    thread.start()
    try:
        watch.start({
            "triune": f"127.0.0.1:{server.options.metrics_port}", "triune-openai": f"127.0.0.1:{server.options.openai_port}",
        })  # fmt: skip
        yield Scene(server, watch, told)
    finally:
        over.set()
        thread.join()
        watch.stop()
        receiver.shutdown()
        stop(server)
        print("\n".join(["", *told.lines]))


def filled(expr: str) -> str:
    """A panel's query as Grafana would send it, of all models, servers and tenants."""
    expr = expr.replace("$__rate_interval", "20s")
    return re.sub(r"\$(model|instance|tenant)\b", ".*", expr)


def test_every_query_of_every_panel_has_data(scene: Scene) -> None:
    def empty() -> list[tuple[Panel, str]]:
        asked = [(panel, filled(expr)) for panel in panels() for expr in panel.queries]
        assert not [expr for _, expr in asked if "$" in expr]
        return [(panel, expr) for panel, expr in asked if not scene.watch.values(expr)]

    missing: list[tuple[Panel, str]] = []

    def only_elsewhere() -> bool:
        missing[:] = empty()
        return all(panel.title.startswith(ELSEWHERE) for panel, _ in missing)

    try:
        wait_until(only_elsewhere, "every panel has data", 30)
    except AssertionError:
        pytest.fail("\n".join(f"{panel.title}: {expr}" for panel, expr in missing if not panel.title.startswith(ELSEWHERE)))


def test_latencies_show_the_callers_trace(scene: Scene) -> None:
    def shown() -> bool:
        found = scene.watch.ask(
            "query_exemplars",
            query="triune_openai_first_chunk_seconds_bucket",
            start="2020-01-01T00:00:00Z",
            end="2100-01-01T00:00:00Z",
        )
        return TRACE in {exemplar["labels"].get("trace_id") for one in found for exemplar in one["exemplars"]}

    wait_until(shown, "an exemplar has the trace's id")


def test_nothing_but_what_is_so_is_told_of_a_healthy_server(scene: Scene) -> None:
    rules = {rule["name"]: rule for group in scene.watch.ask("rules")["groups"] for rule in group["rules"]}
    assert not {name: rule for name, rule in rules.items() if rule["health"] != "ok"}
    assert ("firing", "TriuneDown") not in scene.told.came


def test_a_killed_server_is_told_and_its_return_too(scene: Scene) -> None:
    supervisor = psutil.Process(scene.server.process.pid)
    [triton] = [process for process in supervisor.children() if process.name() == "tritonserver"]
    wait_until(lambda: scene.watch.values('up{job="triune"}') == [1.0], "the server is seen")
    supervisor.send_signal(signal.SIGSTOP)  # who would start it again at once
    try:
        triton.kill()
        wait_until(lambda: ("firing", "TriuneDown") in scene.told.came, "the receiver is told that the server is down")
        assert ("resolved", "TriuneDown") not in scene.told.came
    finally:
        supervisor.send_signal(signal.SIGCONT)
    wait_until(lambda: ("resolved", "TriuneDown") in scene.told.came, "the receiver is told that it is back", 60)
    wait_until(lambda: ("firing", "TriuneRestarted") in scene.told.came, "the receiver is told of a restart", 60)
