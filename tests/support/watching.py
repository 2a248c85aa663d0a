"""A real Prometheus and Alertmanager over a real server: the files of deploy/monitoring with shorter times and other ports."""

from __future__ import annotations

import http.server
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

from support.real_server import ROOT, free_port

FOLDER = ROOT / "deploy" / "monitoring"
NEEDS = "needs Prometheus' own programs; as root: apt-get install prometheus prometheus-alertmanager (or put them on PATH)"
# What is waited for in seconds: each a second here, so that a test takes no minutes. The windows of rates stay as they are.
_WAITS = re.compile(r"\b(for|group_wait|group_interval|scrape_interval|evaluation_interval): \d+[smh]")


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

    def listen(self) -> http.server.ThreadingHTTPServer:
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

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


@dataclass
class Watch:
    """Prometheus and Alertmanager at work."""

    folder: Path
    told: Told
    url: str = ""
    _http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=10, trust_env=False))
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, targets: dict[str, str]) -> None:
        """Start both.

        Args:
            targets: file in targets/ -> the one address in it.
        """
        ports = free_port(), free_port()
        self.url = f"http://127.0.0.1:{ports[0]}"
        files = ("prometheus.yml", "alertmanager.yml", "triune.rules.yml")
        texts = {name: _WAITS.sub(r"\1: 1s", (FOLDER / name).read_text("utf-8")) for name in files}
        texts["prometheus.yml"] = texts["prometheus.yml"].replace("127.0.0.1:9093", f"127.0.0.1:{ports[1]}")
        texts["alertmanager.yml"] = texts["alertmanager.yml"].replace("127.0.0.1:9094", f"127.0.0.1:{self.told.port}")
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
        self._http.close()
        for process in self._running:
            process.terminate()
        for process in self._running:
            process.wait(10)

    def ask(self, path: str, **query: Any) -> Any:
        """The data of an answer of Prometheus' API."""
        answer = self._http.get(f"{self.url}/api/v1/{path}", params=query).json()
        assert answer["status"] == "success", (query, answer)
        return answer["data"]

    def values(self, expr: str) -> list[float]:
        """The values of a query now, without those that are no number."""
        found = [float(one["value"][1]) for one in self.ask("query", query=expr)["result"]]
        return [value for value in found if value == value]


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
