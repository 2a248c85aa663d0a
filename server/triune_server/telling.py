"""What commands print of a server: what it serves, what was proved of it, where it listens."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from triune_runtime.manifest import EngineManifest

from .options import ServerOptions, local
from .tls import called, is_secure, trust


def tell(text: str) -> None:
    """Say something on stderr, if that can be: a full disk or a closed pipe ends nothing that serves."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def open_log(log: Path) -> BinaryIO:
    """A log to write to its end, or nothing's where it cannot be opened: what serves starts again without one, too."""
    try:
        return log.open("ab")
    except OSError:
        return Path(os.devnull).open("ab")


def log_size(log: Path) -> int:
    """Bytes of a log so far."""
    try:
        return log.stat().st_size
    except OSError:
        return 0


def log_lines(log: Path, start: int) -> list[str]:
    """What a log has from a byte on; nothing where it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(start)
            return file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []


def hold_standard_streams() -> None:
    """Give descriptors 0 to 2 something where they are closed: the next file that is opened would be taken for them."""
    null = os.open(os.devnull, os.O_RDWR)
    while null <= 2:
        os.set_inheritable(null, True)
        null = os.open(os.devnull, os.O_RDWR)
    os.close(null)


def served(manifest: EngineManifest, proved: str = "") -> str:
    """The engine in two lines; one where nothing is known of its proof."""
    limits = manifest.limits
    lines = [
        f"  model    {manifest.model}, {manifest.precision} for {manifest.target};"
        f" {limits.max_sequences} sequences of up to {limits.max_length:,} tokens"
    ]
    return "\n".join([*lines, *([f"  proved   {proved}"] if proved else [])])


def where(options: ServerOptions) -> str:
    """Where a server listens, and how to try it."""
    message = (
        '{"messages": "[{\\"role\\": \\"user\\", \\"content\\": \\"What is the capital of France?\\"}]", "max_tokens": 64}'
    )
    http, openai = (_named(url, options, name) for url, name in ((options.http_url, "http"), (options.openai_url, "openai")))
    return "\n".join(
        [
            f"  HTTP     {http}/v2/models/triune/generate",
            f"  gRPC     {_named(options.grpc_url, options, 'grpc')}",
            f"  metrics  {_named(options.metrics_url, options, 'metrics')}",
            *([f"  OpenAI   {openai}/v1  (chat page: {openai}/)"] if options.openai_port else []),
            "try it:",
            f"  curl -s {_trusting(options)}{http}/v2/models/triune/generate -d '{message}'",
            f"  {_python()} -m triune_client chat --url {shlex.join([options.http_url, *trust(options, options.http_url)])}",
        ]
    )


def _named(url: str, options: ServerOptions, name: str) -> str:
    """The URL of a port by a name that its certificate has, if it can be called so."""
    return url.replace(local(options.address(name)), called(options, name)[0], 1) if is_secure(url) else url


def _trusting(options: ServerOptions) -> str:
    """The option by which curl trusts it."""
    if not is_secure(options.http_url):
        return ""
    return f"--cacert {shlex.quote(str(options.tls_cert))} " if called(options, "http")[1] else "-k "


def _python() -> str:
    """This Python as one types it here."""
    path, here = Path(sys.executable), Path(os.path.abspath("."))  # noqa: PTH100  # links of the environment stay
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
