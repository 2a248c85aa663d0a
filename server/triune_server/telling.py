"""What commands print of a server: what it serves, what was proved of it, where it listens."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from triune_runtime.manifest import EngineManifest

from .options import ServerOptions


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
    return "\n".join(
        [
            f"  HTTP     {options.http_url}/v2/models/triune/generate",
            f"  gRPC     {options.grpc_url}",
            f"  metrics  {options.metrics_url}",
            *([f"  OpenAI   {options.openai_url}/v1  (chat page: {options.openai_url}/)"] if options.openai_port else []),
            "try it:",
            f"  curl -s {options.http_url}/v2/models/triune/generate -d '{message}'",
            f"  {_python()} -m triune_client chat --url {options.http_url}",
        ]
    )


def _python() -> str:
    """This Python as one types it here."""
    path, here = Path(sys.executable), Path(os.path.abspath("."))  # noqa: PTH100  # links of the environment stay
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
