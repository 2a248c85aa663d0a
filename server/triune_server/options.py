"""What a server is started with. Each field is declared here once: options, make variables and triune.toml are made from it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ServerError


def about(help: str, least: int | None = None, most: int | None = None) -> dict[str, Any]:
    """What a field's option and its documentation say of it."""
    return {"help": help, "least": least, "most": most}


KEY_VARIABLES = ("TRIUNE_API_KEYS_FILE", "TRIUNE_API_KEYS")
_CHOICES = {
    "prefix_caching": ("on", "off"),
    "front": ("on", "off"),
    "insecure": ("off", "on"),
    "log_format": ("text", "json"),
    "log_text": ("off", "on"),
    "triton_spans": ("off", "on"),
}


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """One server: what it serves and where it listens."""

    repository: Path = field(metadata=about("Triton model repository to serve instead."))
    name: str | None = field(
        default=None, metadata=about("What clients may call the model, beside `triune`; by default its own.")
    )
    also: tuple[str, ...] = field(default=(), metadata=about("Further repositories to serve beside it, as NAME=FOLDER."))
    host: str = field(default="127.0.0.1", metadata=about("Address to listen on."))
    http_host: str | None = field(default=None, metadata=about("Address of HTTP, instead of --host."))
    grpc_host: str | None = field(default=None, metadata=about("Address of gRPC, instead of --host."))
    metrics_host: str | None = field(default=None, metadata=about("Address of metrics, instead of --host."))
    openai_host: str | None = field(default=None, metadata=about("Address of OpenAI's API, instead of --host."))
    http_port: int = field(default=8000, metadata=about("Port of HTTP.", 1, 65535))
    grpc_port: int = field(default=8001, metadata=about("Port of gRPC.", 1, 65535))
    metrics_port: int = field(default=8002, metadata=about("Port of Prometheus metrics.", 1, 65535))
    openai_port: int = field(
        default=8003, metadata=about("Port of the OpenAI-compatible API and chat page; 0: none.", 0, 65535)
    )
    api_key_file: Path | None = field(
        default=None, metadata=about("File of API keys, one a line, that no other user can read; without one, all are served.")
    )
    tls_cert: Path | None = field(default=None, metadata=about("Certificate in PEM: TLS on all ports."))
    tls_key: Path | None = field(default=None, metadata=about("Its key, in PEM."))
    front: str = field(default="on", metadata=about("off: clients talk to Triton itself."))
    insecure: str = field(default="off", metadata=about("on: open to a network without keys."))
    cors: tuple[str, ...] = field(default=(), metadata=about("Web pages that may call it; *: all."))
    access_log: Path | None = field(default=None, metadata=about("File of a JSON line for each request of it."))
    responses_file: Path | None = field(
        default=None, metadata=about("SQLite file of what /v1/responses keeps; by default in memory.")
    )

    drain_s: int = field(default=20, metadata=about("Seconds for requests under way when told to stop.", 0, 86400))
    grpc_connection_s: int = field(
        default=0,
        metadata=about("Seconds that a gRPC connection lasts; 0: any.", 0, 86400),
    )
    log_format: str = field(default="text", metadata=about("text; or json: a line a request, on stdout."))
    log_text: str = field(default="off", metadata=about("on: prompts and answers, too."))
    otlp: str | None = field(default=None, metadata=about("Collector for traces: http://HOST:4318."))
    triton_spans: str = field(default="off", metadata=about("on: Triton's own spans, too."))
    prefix_caching: str = field(default="on", metadata=about("Share prefixes: on, off."))
    max_memory: int = field(default=0, metadata=about("MB of the engine's process; over it requests are refused.", 0))
    fair_share: str = field(default="off", metadata=about("Clients share slots: off, on, NUMBER of each."))

    def __post_init__(self) -> None:
        """
        Raises:
            ServerError: a choice is none of its values, `fair_share` neither that nor a number, or `otlp` is no URL.
        """
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                said = f"{name} is {value!r}; it can be {' or '.join(choices)}"
                raise ServerError(said, f"choose another {name.upper()}")
        if not re.fullmatch(r"on|off|[1-9][0-9]{0,3}", self.fair_share):
            said = f"fair_share is {self.fair_share!r}; it can be on, off, or how many slots one client may have"
            raise ServerError(said, "choose another FAIR_SHARE, e.g. 12")
        if self.otlp is not None and not self.otlp.startswith(("http://", "https://")):
            raise ServerError(f"otlp is {self.otlp!r}; the URL of a collector is expected", "e.g. OTLP=http://127.0.0.1:4318")

    @property
    def repositories(self) -> tuple[Path, ...]:
        """All that are served from the start."""
        return self.repository, *(Path(one.partition("=")[2]) for one in self.also)

    @property
    def keyed(self) -> bool:
        """Whether API keys are asked for: those of the file, or of the environment, as the gateway reads it."""
        return self.api_key_file is not None or any(os.environ.get(name) for name in KEY_VARIABLES)

    @property
    def ports(self) -> dict[str, int]:
        """Port by the variable that sets it."""
        ports = {"HTTP_PORT": self.http_port, "GRPC_PORT": self.grpc_port, "METRICS_PORT": self.metrics_port}
        return ports | ({"OPENAI_PORT": self.openai_port} if self.openai_port else {})

    def address(self, name: str) -> str:
        """What a port listens on, by its name: http, grpc, metrics, openai."""
        own: str | None = getattr(self, f"{name}_host")
        return own or self.host

    def address_variable(self, name: str) -> str:
        """Which variable says that."""
        return f"{name.upper()}_HOST" if getattr(self, f"{name}_host") else "HOST"

    @property
    def own_grpc(self) -> bool:
        """Whether the front serves gRPC, too: Triton's own asks for no keys, and speaks TLS with a certificate of its start."""
        return self.front == "on" and (self.keyed or self.tls_cert is not None)

    @property
    def kserve_tls(self) -> bool:
        """Whether the ports of HTTP, gRPC and metrics speak TLS."""
        return self.tls_cert is not None

    # For a client on this machine.

    @property
    def http_url(self) -> str:
        return _url("http", self.kserve_tls, self.address("http"), self.http_port)

    @property
    def grpc_url(self) -> str:
        return _url("grpc", self.kserve_tls, self.address("grpc"), self.grpc_port).removeprefix("grpc://")

    @property
    def openai_url(self) -> str:
        return _url("http", self.tls_cert is not None, self.address("openai"), self.openai_port)

    @property
    def metrics_url(self) -> str:
        return f"{_url('http', self.kserve_tls, self.address('metrics'), self.metrics_port)}/metrics"


def local(host: str) -> str:
    """An address that a client on this machine can use of what listens on `host`."""
    return "127.0.0.1" if host in ("0.0.0.0", "::") else host


def _url(scheme: str, tls: bool, host: str, port: int) -> str:
    return f"{scheme}{'s' if tls else ''}://{local(host)}:{port}"
