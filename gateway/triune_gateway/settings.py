"""What the gateway is started with: plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One gateway: where it listens, what it serves, and how much it takes.

    Attributes:
        grpc_ca_file: certificates that the server behind is trusted by, in PEM; None: the public ones. For grpcs:// alone.
        grpc_server_name: the name in its certificate, where that is not the host of `grpc_url`.
        aliases: further names that clients may call the model by.
        models_file: further models, which may come and go: JSON, for each name an object with the `ensemble` behind it.
        timeout_s: longest silence of the server behind, the wait for a free slot included.
        access_log: the file that gets a JSON line for every request, "-" for the standard output, None for none.
        draining_file: while it is there, new requests are refused: the server behind is about to stop.
        stalled_file: while it is there, this is not ready: a process of the server behind hangs.
        max_connections: open at once; more are answered with status 503 and closed.
        head_timeout_s: seconds that a connection has to say what it asks, at its beginning and after an answer.
        body_timeout_s: seconds that the body of a request may take to come.
        write_timeout_s: seconds that a client may read nothing of an answer that is there.
        drain_s: seconds that requests under way get to end when this is told to stop.
        max_responses: answers of /v1/responses that are kept, for clients to go on from; 0: none.
        responses_file: the SQLite database that they are kept in; by default memory, gone with the process.
        tls_cert, tls_key: files in PEM; None: it speaks HTTP without TLS.
        api_keys: whoever sends one of them is served; without any, everyone is. Each may have a name, see `keys.split_name`.
    """

    host: str = "127.0.0.1"
    port: int = 8003
    tls_cert: Path | None = None
    tls_key: Path | None = None
    grpc_url: str = "127.0.0.1:8001"
    grpc_ca_file: Path | None = None
    grpc_server_name: str | None = None
    model: str = "triune"  # the ensemble, and the name it is served under
    aliases: tuple[str, ...] = ()
    models_file: Path | None = None
    timeout_s: float = 120.0
    draining_file: Path | None = None
    stalled_file: Path | None = None
    drain_s: float = 20.0
    api_keys: tuple[str, ...] = ()
    max_body_bytes: int = 4_000_000
    max_requests: int = 1024  # served at once; more are refused with status 429
    max_connections: int = 4096
    head_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    write_timeout_s: float = 60.0
    max_choices: int = 32  # answers of one request: prompts times `n`
    access_log: str | None = None
    max_responses: int = 1000
    max_responses_bytes: int = 64_000_000
    responses_file: str = ":memory:"
    otlp: str | None = None  # a collector for traces
    allowed_origins: tuple[str, ...] = ()  # of web pages elsewhere (CORS); "*" for all

    @property
    def models(self) -> tuple[str, ...]:
        """The names under which the first model is served, each once."""
        return tuple(dict.fromkeys((self.model, *self.aliases)))

    def counted_as(self, called: str | None) -> str:
        """The one name that metrics have for a model, whatever its clients call it: the first alias, which is the engine's own
        name and so what the server's metrics say; "" for no model."""
        return self.aliases[0] if self.aliases and called in self.models else called or ""
