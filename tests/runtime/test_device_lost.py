"""A lost device ends the worker: everyone is answered, nobody is taken in. Run: pytest tests/runtime/test_device_lost.py"""

from __future__ import annotations

from typing import Any

import pytest

from fakes.cuda_engines import HostPaged, cuda_manifest
from fakes.runtime import STOPS, TOKENS, VOCAB, make_engine
from fakes.sinks import Client, request, wait_until, working
from triune_runtime.errors import DeviceLost, Overloaded, TriuneError
from triune_runtime.generation.loop import StepLoop
from triune_runtime.kv.blocks import BlockStore
from triune_runtime.manifest import Limits
from triune_runtime.request import Chunk
from triune_runtime.sampling.sampler import Sampler
from triune_runtime.targets.device.host import HostDevice


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


def test_a_gpu_that_is_lost_with_steps_in_flight_answers_those_that_run_and_those_that_wait() -> None:
    """It shows where a step is waited for: the next one is launched already, and more requests wait than there are slots."""

    class Dying(HostDevice):
        waits = 0

        def run_until(self, reached: Any) -> None:
            self.waits += 1
            if self.waits > 40:
                raise DeviceLost("waiting for the GPU failed: an illegal memory access")
            super().run_until(reached)

    limits = Limits(max_sequences=3, max_length=64, prefill_chunk=8, max_queue=20)
    manifest = cuda_manifest(VOCAB, limits, 4, STOPS)
    made = HostPaged(manifest, blocks=40, device=(device := Dying()))
    loop = StepLoop(manifest, made.runner, TOKENS, store=BlockStore(3, 40, 4), sampler=Sampler(VOCAB))
    made.runner.warm_up()
    device.waits = 0
    loop.start = lambda: None  # type: ignore[method-assign]
    with working(loop) as worker:
        clients = [Client() for _ in range(8)]
        for key, client in enumerate(clients):
            worker.submit(request(key, 50, stream=True), client)
        assert all("illegal memory access" in str(client.last) for client in clients)
        assert any(isinstance(client.items[0], Chunk) for client in clients), "some were under way"
        wait_until(lambda: not worker.alive)
