"""What a server is started with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from triune_runtime.targets import DEFAULT_TARGET


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """One server: what it serves and where it listens."""

    repository: Path = Path("build/smollm2-135m") / DEFAULT_TARGET / "repository"
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    openai_port: int = 8003  # 0: no OpenAI-compatible API

    @property
    def ports(self) -> dict[str, int]:
        """Port by the variable that sets it."""
        ports = {"HTTP_PORT": self.http_port, "GRPC_PORT": self.grpc_port, "METRICS_PORT": self.metrics_port}
        return ports | ({"OPENAI_PORT": self.openai_port} if self.openai_port else {})

    @property
    def local_host(self) -> str:
        """An address that a client on this machine can use."""
        return "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host

    @property
    def http_url(self) -> str:
        return f"http://{self.local_host}:{self.http_port}"

    @property
    def grpc_url(self) -> str:
        return f"{self.local_host}:{self.grpc_port}"

    @property
    def openai_url(self) -> str:
        return f"http://{self.local_host}:{self.openai_port}"

    @property
    def metrics_url(self) -> str:
        return f"http://{self.local_host}:{self.metrics_port}/metrics"
