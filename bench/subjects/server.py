"""The full server over gRPC streaming: tritonserver, its three steps, and our own client on the same machine."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from triune_client.grpc import GrpcClient

from ..answers import ask_together
from ..ports import free_port
from ..timing import Stream

_READY_LIMIT_S = 120.0


class Subject:
    """See `bench.worker.Subject`."""

    def __init__(self, repository: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        http, grpc, metrics = (free_port() for _ in range(3))
        ports = [f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}", "--openai-port=0"]
        command = [sys.executable, "-m", "triune_server", "serve", f"--repository={repository}", *ports]
        self._log = Path(self._folder.name) / "serve.out"
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                [*command, f"--run-folder={self._folder.name}"], stdout=out, stderr=subprocess.STDOUT
            )
        self.client = GrpcClient(f"127.0.0.1:{grpc}", timeout_s=None, max_retries=0)
        self._wait_ready()

    def about(self) -> dict[str, Any]:
        return {"tritonclient": version("tritonclient"), "streams": "one gRPC stream for each answer"}

    def generate(self, prompts: list[str], tokens: int) -> list[Stream]:
        def ask(prompt: str) -> Iterator[int]:
            with self.client.stream(prompt, max_tokens=tokens, ignore_eos=True, temperature=0.0) as chunks:
                for chunk in chunks:
                    yield chunk.usage.output_tokens

        return ask_together(ask, prompts)

    def close(self) -> None:
        self.client.close()
        self._process.terminate()
        self._process.wait(20)
        self._folder.cleanup()

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + _READY_LIMIT_S
        while not self.client.ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self._log.read_text("utf-8", "replace").strip().replace("\n", "; ")
                self.close()
                raise RuntimeError(f"the server did not start: {said[-250:]}")
            time.sleep(0.1)
