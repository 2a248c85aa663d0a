"""How the commands of a server ask it over HTTP: it is this machine's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx


def ask(url: str, *, timeout_s: float, method: str = "GET", socket: Path | None = None, **more: Any) -> httpx.Response:
    """One answer.

    Args:
        socket: what listens at it; None: where `url` says.
        more: as of httpx.

    Raises:
        httpx.HTTPError: there is none.
    """
    transport = None if socket is None else httpx.HTTPTransport(verify=False, uds=str(socket))
    # trust_env: a proxy of the environment is for the network, not for this machine.
    # verify: the server's certificate has the name by which a network knows it, and what is asked does not leave this machine.
    with httpx.Client(transport=transport, timeout=timeout_s, trust_env=False, verify=False) as client:
        return client.request(method, url, **more)
