"""Gateways as they listen, each on a thread of its own, over a stand-in for the server behind."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fakes.ensemble import Ensemble
from support.real_server import free_port
from triune_gateway.app import create_app
from triune_gateway.connections import configured
from triune_gateway.running import Server
from triune_gateway.settings import Settings
from triune_gateway.tls import Tls

PATIENCE_S = 20.0


@contextmanager
def running(ensemble: Ensemble, tls: Tls | None = None, **limits: Any) -> Iterator[int]:
    """The port of a gateway with these settings."""
    settings = Settings(port=free_port(), **limits)
    app = create_app(settings, ensemble.client, tls=tls)
    server = Server(configured(app, settings, tls), app.state.serving.intake, 0.0, tls)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    end = time.monotonic() + PATIENCE_S
    while not server.started:
        assert time.monotonic() < end, "it does not start"
        time.sleep(0.01)
    try:
        yield settings.port
    finally:
        server.should_exit = server.force_exit = True
        thread.join(PATIENCE_S)
    assert not thread.is_alive()
