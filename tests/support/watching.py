"""A real Prometheus and Alertmanager over a real server: the files of deploy/monitoring with shorter times and other ports."""

from __future__ import annotations

import http.server
import itertools
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from support.dashboards import panels
from support.real_server import ROOT, free_port

FOLDER = ROOT / "deploy" / "monitoring"
NEEDS = "needs Prometheus' own programs; as root: apt-get install prometheus prometheus-alertmanager (or put them on PATH)"
# What is waited for in seconds: each a second here, so that a test takes no minutes. The windows of rates stay as they are.
_WAITS = re.compile(r"\b(for|group_wait|group_interval|scrape_interval|evaluation_interval|refresh_interval): \d+[smh]")


KEYS = "k1 # alice\nk2 # bob\n"  # of those who ask in `load`
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"  # theirs
_PARENT = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
RECEIVER = "127.0.0.1:9094"  # in alertmanager.yml
# Without data on a machine without GPUs, and without a proxy whose certificate is watched.
ELSEWHERE = ("GPU", "Certificate")


def hurried(name: str) -> str:
    """The text of a file of deploy/monitoring with a second for whatever is waited for."""
    return _WAITS.sub(r"\1: 1s", (FOLDER / name).read_text("utf-8"))


def program(*names: str) -> str | None:
    """The path of the first of these programs that is installed; Debian has names of its own."""
    return next((found for name in names if (found := shutil.which(name))), None)


PROMTOOL, AMTOOL = program("promtool"), program("amtool")
PROMETHEUS, ALERTMANAGER = program("prometheus"), program("alertmanager", "prometheus-alertmanager")


@dataclass
class Told:
    """A receiver of alerts: what came, with the seconds since it listens."""

    port: int = 0
    lines: list[str] = field(default_factory=list)
    came: list[tuple[str, str]] = field(default_factory=list)  # status and name

    def listen(self, host: str = "127.0.0.1") -> http.server.ThreadingHTTPServer:
        told, began = self, time.monotonic()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                for alert in json.loads(self.rfile.read(int(self.headers["Content-Length"])))["alerts"]:
                    name = alert["labels"]["alertname"]
                    told.came.append((alert["status"], name))
                    at = time.monotonic() - began
                    told.lines.append(f"{at:5.1f} s  {alert['status']:<8}  {name}  {alert['annotations']['summary']}")
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer((host, 0), Handler)
        self.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


@dataclass
class Watch:
    """Prometheus and Alertmanager at work."""

    folder: Path
    told: Told
    url: str = ""
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, targets: dict[str, str]) -> None:
        """Start both.

        Args:
            targets: file in targets/ -> the one address in it.
        """
        ports = free_port(), free_port()
        self.url = f"http://127.0.0.1:{ports[0]}"
        texts = {name: hurried(name) for name in ("prometheus.yml", "alertmanager.yml", "triune.rules.yml")}
        texts["prometheus.yml"] = texts["prometheus.yml"].replace("127.0.0.1:9093", f"127.0.0.1:{ports[1]}")
        texts["alertmanager.yml"] = texts["alertmanager.yml"].replace(RECEIVER, f"127.0.0.1:{self.told.port}")
        shutil.copytree(FOLDER / "targets", self.folder / "targets")
        for name, address in targets.items():
            texts[f"targets/{name}.yml"] = f'- targets: ["{address}"]\n'
        for name, text in texts.items():
            (self.folder / name).write_text(text, "utf-8")
        assert PROMETHEUS is not None and ALERTMANAGER is not None
        self._run(
            PROMETHEUS, "--config.file=prometheus.yml", f"--web.listen-address=127.0.0.1:{ports[0]}",
            "--storage.tsdb.path=data", "--enable-feature=exemplar-storage",
        )  # fmt: skip
        self._run(
            ALERTMANAGER, "--config.file=alertmanager.yml", f"--web.listen-address=127.0.0.1:{ports[1]}",
            "--storage.path=alerts", "--cluster.listen-address=",
        )  # fmt: skip
        wait_until(lambda: httpx.get(f"{self.url}/-/ready").status_code == 200, "Prometheus is ready")

    def _run(self, *command: str) -> None:
        with (self.folder / f"{Path(command[0]).name}.log").open("wb") as out:
            self._running.append(subprocess.Popen(command, cwd=self.folder, stdout=out, stderr=subprocess.STDOUT))

    def stop(self) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            process.wait(10)

    def ask(self, path: str, **query: Any) -> Any:
        """The data of an answer of Prometheus' API."""
        return ask(self.url, path, **query)

    def values(self, expr: str) -> list[float]:
        """The values of a query now, without those that are no number."""
        return values(self.url, expr)


def load(openai_url: str, over: threading.Event) -> None:
    """Answers of every kind, one after another, until it is over; a server that is away is nothing special."""
    kinds = itertools.cycle(({}, {"stream": True}, {"stream": True, "max_tokens": 200}, {"model": "x"}))
    said = {"model": "triune", "messages": [{"role": "user", "content": "Name three towns by the sea."}], "max_tokens": 8}
    for number, kind in enumerate(kinds):
        if over.is_set():
            return
        headers = {"authorization": f"Bearer {('k1', 'k2')[number % 3 % 2]}", **_PARENT}
        url, body = f"{openai_url}/v1/chat/completions", said | kind
        try:
            with httpx.stream("POST", url, json=body, headers=headers, timeout=30, trust_env=False) as reply:
                for _ in reply.iter_bytes():
                    if body["max_tokens"] == 200:
                        break  # leaves in the middle
        except httpx.HTTPError:
            over.wait(0.2)


def ask(url: str, path: str, **query: Any) -> Any:
    """The data of an answer of a Prometheus' API."""
    answer = httpx.get(f"{url}/api/v1/{path}", params=query, timeout=10, trust_env=False).json()
    assert answer["status"] == "success", (query, answer)
    return answer["data"]


def values(url: str, expr: str) -> list[float]:
    """The values of a query of a Prometheus now, without those that are no number."""
    found = [float(one["value"][1]) for one in ask(url, "query", query=expr)["result"]]
    return [value for value in found if value == value]


def wait_for_every_panel(url: str, timeout_s: float = 90.0) -> None:
    """Wait until every query of every panel has data in a Prometheus, but for what there is `ELSEWHERE` alone."""

    def missing() -> list[str]:
        asked = [(panel.title, filled(expr)) for panel in panels() for expr in panel.queries]
        assert not [expr for _, expr in asked if "$" in expr]
        wanted = [(title, expr) for title, expr in asked if not title.startswith(ELSEWHERE)]
        return [f"{title}: {expr}" for title, expr in wanted if not values(url, expr)]

    end = time.monotonic() + timeout_s
    while found := missing():
        assert time.monotonic() < end, "\n".join(["no data:", *found])
        time.sleep(0.5)


def filled(expr: str) -> str:
    """A panel's query as Grafana would send it, of all models, servers and tenants."""
    return re.sub(r"\$(model|instance|tenant)\b", ".*", expr.replace("$__rate_interval", "20s"))


def wait_until(holds: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Wait until something holds; a failing connection means not yet."""
    end = time.monotonic() + timeout_s
    while True:
        try:
            if holds():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < end, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.2)
