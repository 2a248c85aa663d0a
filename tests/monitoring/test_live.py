"""A real Prometheus over a real server under load: every panel has data, and a killed server is told and forgotten.

Run: make test-monitoring. Prints what the alerts' receiver was told.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest

from support.real_server import REPOSITORY, RealServer, start, stop
from support.watching import (
    ALERTMANAGER,
    KEYS,
    NEEDS,
    PROMETHEUS,
    TRACE,
    Told,
    Watch,
    load,
    wait_for_every_panel,
    wait_until,
)

WANTED = os.environ.get("TRIUNE_TEST_MONITORING")
pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(not WANTED, reason="run by `make test-monitoring`"),
]


@dataclass
class Scene:
    """A server under load, and who watches it."""

    server: RealServer
    watch: Watch
    told: Told


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    if PROMETHEUS is None or ALERTMANAGER is None:
        pytest.fail(NEEDS)
    folder = tmp_path_factory.mktemp("watched")
    keys = folder / "keys"
    keys.touch(0o600)
    keys.write_text(KEYS)
    (folder / "run").mkdir()
    (folder / "prometheus").mkdir()
    server = start(folder / "run", REPOSITORY, f"--api-key-file={keys}")
    told, over = Told(), threading.Event()
    receiver = told.listen()
    watch = Watch(folder / "prometheus", told)
    thread = threading.Thread(target=load, args=(server.options.openai_url, over))
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


def test_every_query_of_every_panel_has_data(scene: Scene) -> None:
    wait_for_every_panel(scene.watch.url)


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
