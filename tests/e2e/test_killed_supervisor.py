"""kill -9 of the supervisor under 16 streams: everybody is answered or cut off, nothing is left, and it starts again at once.

Slow: pytest -m slow -s tests/e2e/test_killed_supervisor.py; TRIUNE_KILLS=20 for twenty times (default 2). It needs r1-nano:
`make engine MODEL=r1-nano`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from support.real_server import ROOT, free_port

pytestmark = [pytest.mark.triton, pytest.mark.slow]
REPOSITORY = ROOT / "build/r1-nano/cpu/repository"
KILLS = int(os.environ.get("TRIUNE_KILLS", "2"))
STREAMS = 16
CUT_S = 2.0


class Served:
    """`triune up` on ports of its own, again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {name: free_port() for name in ("http", "grpc", "metrics", "openai")}

    def triune(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "triune_server", *arguments, f"--run-folder={self.folder}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=150)

    def up(self) -> psutil.Process:
        """Start it; its supervisor."""
        ports = [f"--{name}-port={port}" for name, port in self.ports.items()]
        done = self.triune("up", f"--repository={REPOSITORY}", *ports)
        assert done.returncode == 0, done.stderr
        (supervisor,) = {p for p in processes(self.folder) if "triune_server" in p.cmdline()}
        return supervisor


def processes(folder: Path) -> list[psutil.Process]:
    """Whatever lives and has the folder in its command line."""
    found = psutil.process_iter(["cmdline", "status"])
    return [p for p in found if str(folder) in " ".join(p.info["cmdline"] or ()) and p.info["status"] != psutil.STATUS_ZOMBIE]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    if not REPOSITORY.exists():
        pytest.fail(f"no model repository at {REPOSITORY}: run `make engine MODEL=r1-nano`")
    made = Served(tmp_path / "run")
    yield made
    made.triune("down")


class Client:
    """Streams an endless answer, and notes when it has ended, and how."""

    def __init__(self, url: str, body: dict[str, object]) -> None:
        self.began = threading.Event()
        self.ended_at = 0.0
        self.outcome = ""
        self._url, self._body = url, body
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self.outcome:
            try:
                with httpx.stream("POST", self._url, json=self._body, timeout=60) as response:
                    for _ in response.iter_lines():
                        self.began.set()
            except httpx.HTTPError as error:
                self.outcome = type(error).__name__
        self.ended_at = time.monotonic()


def clients(served: Served) -> list[Client]:
    """Half of them of Triton's own endpoint, half of OpenAI's."""
    own = {"text_input": "Once", "max_tokens": 1_900, "ignore_eos": True, "stream": True}
    openai = {"model": "triune", "messages": [{"role": "user", "content": "Once"}], "max_tokens": 1_900, "stream": True}
    http, api = (f"http://127.0.0.1:{served.ports[name]}" for name in ("http", "openai"))
    half = [Client(f"{http}/v2/models/triune/generate_stream", own) for _ in range(STREAMS // 2)]
    return half + [Client(f"{api}/v1/chat/completions", openai) for _ in range(STREAMS // 2)]


def test_a_supervisor_killed_under_load_leaves_nobody_waiting_and_nothing_behind(served: Served) -> None:
    for number in range(KILLS):
        supervisor = served.up()
        asking = clients(served)
        assert all(client.began.wait(60) for client in asking), "a stream has not begun"
        killed_at = time.monotonic()
        supervisor.kill()
        for client in asking:
            client.thread.join(30)
        outcomes = Counter(client.outcome or "hangs" for client in asking)
        assert "hangs" not in outcomes, outcomes
        slowest = max(client.ended_at for client in asking) - killed_at
        with suppress(psutil.Error):
            supervisor.wait(5)
        left = processes(served.folder)
        print(f"{number + 1}: {dict(outcomes)}, the last after {1000 * slowest:.0f} ms; {len(left)} processes left")
        assert slowest < CUT_S
        assert left == []
    served.up()  # after the last one, too
