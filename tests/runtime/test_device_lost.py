"""A lost device ends the worker: everyone is answered, nobody is taken in. Run: pytest tests/runtime/test_device_lost.py"""

from __future__ import annotations

from typing import Any

import pytest

from fakes.runtime import make_engine
from fakes.sinks import Client, request, wait_until, working
from triune_runtime.errors import DeviceLost, Overloaded, TriuneError


def test_a_lost_device_answers_everyone_and_stops_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the worker stops, the model's process ends and the server is started again."""
    engine = make_engine()

    def lost(work: Any) -> Any:
        raise DeviceLost("waiting for the GPU failed")

    monkeypatch.setattr(engine.runner, "run", lost)
    with working(engine) as worker:
        clients = [Client() for _ in range(3)]
        for key, client in enumerate(clients):
            try:
                worker.submit(request(key), client)
            except Overloaded:
                client(TriuneError("refused"))
        for client in clients:
            assert isinstance(client.last, TriuneError)
        assert "waiting for the GPU failed" in str(clients[0].last)
        wait_until(lambda: not worker.alive)
        with pytest.raises(Overloaded, match="has failed"):
            worker.submit(request(9), Client())
