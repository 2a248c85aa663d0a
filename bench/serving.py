"""`triune serve` in a process of its own, on free ports, for as long as a `with` block."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from .ports import free_port

_READY_LIMIT_S = 120.0


class Serving:
    """A running server: its gRPC address, and the URLs of its metrics and of its OpenAI-compatible API."""

    def __init__(self, repository: str, *, openai: bool, limit_s: float = _READY_LIMIT_S, folder: Path | None = None) -> None:
        """Start it and wait until it answers.

        Args:
            openai: whether it serves the OpenAI-compatible API too.
            limit_s: seconds until it must.
            folder: where its logs stay; by default they go with it.

        Raises:
            RuntimeError: it did not start; the message has its last words.
        """
        self._folder, self._limit_s = tempfile.TemporaryDirectory(), limit_s
        http, grpc, metrics = (free_port() for _ in range(3))
        openai_port = free_port() if openai else 0
        self.grpc_url, self.openai_url = f"127.0.0.1:{grpc}", f"http://127.0.0.1:{openai_port}"
        self.http_port, self.openai_port = http, openai_port
        self.metrics_url = f"http://127.0.0.1:{metrics}/metrics"
        ports = [f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}", f"--openai-port={openai_port}"]
        # What is measured is to be computed.
        command = [sys.executable, "-m", "triune_server", "serve", f"--repository={repository}", "--prefix-caching=off", *ports]
        self.run_folder = Path(self._folder.name) if folder is None else folder
        self.run_folder.mkdir(parents=True, exist_ok=True)
        self._log = self.run_folder / "serve.out"
        with self._log.open("wb") as out:
            self.process = subprocess.Popen([*command, f"--run-folder={self.run_folder}"], stdout=out, stderr=subprocess.STDOUT)
        self._wait(f"{self.openai_url}/health" if openai else f"http://127.0.0.1:{http}/v2/models/triune/ready")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(60)  # vLLM ends in order, too
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _wait(self, url: str) -> None:
        deadline = time.monotonic() + self._limit_s
        while not _answers(url):
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = self._log.read_text("utf-8", "replace").strip().replace("\n", "; ")
                self.close()
                raise RuntimeError(f"the server did not start: {said[-250:]}")
            time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
