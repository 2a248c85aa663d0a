"""Run: pytest tests/runtime/test_worker.py"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.runtime import make_engine, run_alone, text_of
from fakes.sinks import PATIENCE_S, UNHURRIED, Client, Gated, hold_until, request, wait_until, working
from triune_runtime.errors import Overloaded, RequestError, TriuneError
from triune_runtime.generation.loop import StepLoop
from triune_runtime.outbox import Item, Pace
from triune_runtime.request import Chunk, Request
from triune_runtime.sampling.sampler import Sampler
from triune_runtime.worker import Worker


def test_answers_come_on_the_sending_thread_and_equal_lone_ones() -> None:
    with working(make_engine()) as worker:
        clients = [Client() for _ in range(30)]
        for key, client in enumerate(clients):
            worker.submit(request(key), client)
        for key, client in enumerate(clients):
            assert isinstance(client.last, Chunk) and client.last.finish_reason == "length"
            assert client.threads == {"triune-send"}
            assert text_of(client.chunks) == text_of(run_alone(request(key)))
            assert [c.index for c in client.chunks] == list(range(len(client.chunks)))


@pytest.mark.parametrize("seed", range(8))
def test_disconnects_and_slow_readers_disturb_nobody_else(seed: int) -> None:
    rng = random.Random(seed)
    engine = make_engine(max_sequences=rng.randint(1, 6), max_length=128, prefill_chunk=rng.randint(1, 8))
    pace = Pace(max_chunks_per_s=rng.choice([200.0, 5000.0]), max_unacknowledged=2, ack_timeout_s=None)
    leavers: set[int] = set()
    clients: dict[int, Client] = {}

    def make_client(worker: Worker, key: int) -> Client:
        kind = rng.choice(["plain", "slow", "aborts", "cancelled", "breaks"])
        leaves_after = rng.randrange(4)
        if kind not in ("plain", "slow"):
            leavers.add(key)

        def react(client: Client, item: Item) -> None:
            if kind == "slow":
                time.sleep(0.002)
            leaving = kind in ("aborts", "cancelled", "breaks") and len(client.items) > leaves_after
            if leaving and kind == "aborts":
                worker.abort(key)
            worker.acknowledge(key, cancelled=leaving and kind == "cancelled")
            if leaving and kind == "breaks":
                raise rng.choice([OSError, SystemExit])("the client has gone")

        return Client(react)

    requests = [request(key, rng.randint(1, 40), stream=rng.random() < 0.8) for key in range(24)]
    with working(engine, pace) as worker:
        for one in requests:
            clients[one.key] = make_client(worker, one.key)
            worker.submit(one, clients[one.key], leased=rng.random() < 0.5)
            if rng.random() < 0.3:
                time.sleep(0.002)
        for client in clients.values():
            client.wait()
    assert not engine.has_work and not engine.scheduler.running
    for one in requests:
        client = clients[one.key]
        assert client.lasts == 1
        assert [c.index for c in client.chunks] == list(range(len(client.chunks)))
        alone = text_of(run_alone(one, max_length=128, prefill_chunk=engine.limits.prefill_chunk))
        if one.key not in leavers:
            assert text_of(client.chunks) == alone


def test_chunks_of_a_stream_merge_behind_a_slow_sink() -> None:
    hold = threading.Event()
    with working(make_engine()) as worker:
        slow = Client(lambda client, item: hold_until(hold))
        worker.submit(request(0, 30), slow)
        slow.wait(lambda client: bool(client.items))
        wait_until(lambda: not worker._generator.has_work)
        hold.set()
        slow.wait()
        assert len(slow.items) <= 3  # the first, what came meanwhile, and the last if it was not yet among that
        assert sum(c.new_tokens for c in slow.chunks) == 30
        assert text_of(slow.chunks) == text_of(run_alone(request(0, 30)))


def test_an_abort_frees_the_slot_and_is_answered() -> None:
    runner = Gated()
    engine = make_engine(runner, max_sequences=1)
    with working(engine) as worker:
        first, second = Client(), Client()
        worker.submit(request(0, 1000, id="mine"), first)
        worker.submit(request(1, 2), second)
        assert runner.running.wait(PATIENCE_S)
        worker.abort_id("mine")
        runner.gate.set()
        assert isinstance(first.last, Chunk) and first.last.finish_reason == "cancelled"
        assert isinstance(second.last, Chunk) and second.last.finish_reason == "length"


def test_a_cancelled_acknowledgement_ends_its_request_and_measures_the_time_to_free() -> None:
    engine = make_engine()
    with working(engine) as worker:
        client = Client(lambda client, item: worker.acknowledge(7, cancelled=True))
        worker.submit(request(7, 1000), client)
        assert isinstance(client.last, Chunk) and client.last.finish_reason == "cancelled"
        assert any(u.family == "triune_abort_to_free_seconds" for u in engine.metrics.drain())


def test_missing_acknowledgements_end_a_leased_request_only() -> None:
    with working(make_engine(max_length=100_000), Pace(ack_timeout_s=0.05)) as worker:
        silent, direct = Client(), Client()
        worker.submit(request(0, 90_000), silent, leased=True)
        worker.submit(request(1, 500), direct)
        assert isinstance(silent.last, Chunk) and silent.last.finish_reason == "cancelled"
        assert isinstance(direct.last, Chunk) and direct.last.finish_reason == "length"


def test_bad_requests_are_answered_with_their_error() -> None:
    with working(make_engine(max_length=16)) as worker:
        bad, good = Client(), Client()
        worker.submit(request(0, 100), bad)
        worker.submit(request(1, 2), good)
        assert isinstance(bad.last, RequestError) and len(bad.items) == 1
        assert isinstance(good.last, Chunk)


def test_a_flood_is_refused_at_once_and_nobody_is_lost() -> None:
    runner = Gated()
    with working(make_engine(runner, max_sequences=2, max_queue=3)) as worker:
        clients = [Client() for _ in range(5)]
        for key, client in enumerate(clients):
            worker.submit(request(key, 2), client)
        with pytest.raises(Overloaded, match="5 requests are here already, the limit is 2 being served and 3 waiting"):
            worker.submit(request(5, 2), Client())
        runner.gate.set()
        for client in clients:
            client.wait()
        worker.submit(request(6, 2), Client())


def test_closing_answers_everyone_once_and_refuses_more() -> None:
    runner = Gated()
    worker = Worker(make_engine(runner, max_sequences=2), UNHURRIED)
    clients = [Client() for _ in range(6)]
    for key, client in enumerate(clients):
        worker.submit(request(key, 1000), client)
    assert runner.running.wait(PATIENCE_S)
    threading.Timer(0.05, runner.gate.set).start()
    worker.close()
    worker.close()
    assert not worker.alive
    assert [client.lasts for client in clients] == [1] * 6
    assert any(isinstance(client.last, Overloaded) for client in clients)
    with pytest.raises(Overloaded, match="the server is stopping"):
        worker.submit(request(9), Client())
    assert not any(t.name.startswith("triune-") and t.is_alive() for t in (worker._stepper, worker._sender))


def test_a_stuck_runner_cannot_keep_anyone_waiting_for_the_end() -> None:
    runner = Gated()
    worker = Worker(make_engine(runner), UNHURRIED)
    client = Client()
    worker.submit(request(0), client)
    assert runner.running.wait(PATIENCE_S)
    worker.close(timeout_s=0.2)
    assert isinstance(client.last, Overloaded)
    runner.gate.set()
    worker._stepper.join(PATIENCE_S)
    assert client.lasts == 1


def test_a_stuck_runner_shows_in_what_the_worker_says_of_its_steps() -> None:
    runner = Gated()
    worker = Worker(make_engine(runner), UNHURRIED)
    assert worker.steps() is None, "there is nothing to do"
    worker.submit(request(0), Client())
    assert runner.running.wait(PATIENCE_S)
    stuck = worker.steps()
    time.sleep(0.2)
    assert stuck is not None and worker.steps() == stuck
    runner.gate.set()
    wait_until(lambda: worker.steps() is None)
    worker.close()
    assert worker.steps() is None and worker.sent() is None


def test_a_sink_that_is_stuck_shows_in_what_the_worker_says_of_what_it_sends() -> None:
    worker = Worker(make_engine(), UNHURRIED)
    came, go = threading.Event(), threading.Event()

    def sink(item: object) -> None:
        came.set()
        go.wait(PATIENCE_S)

    assert worker.sent() is None
    worker.submit(request(0), sink)
    assert came.wait(PATIENCE_S)
    assert worker.sent() == 1
    go.set()
    worker.close()
    assert worker.sent() is None


def test_a_failure_of_the_stepping_thread_answers_everyone_and_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(loop: StepLoop, wanted: object) -> Any:
        raise KeyError("a bug of ours")

    monkeypatch.setattr(StepLoop, "step", step)
    worker = Worker(make_engine(), UNHURRIED)
    clients = [Client() for _ in range(3)]
    refused = 0
    for key, client in enumerate(clients):
        try:
            worker.submit(request(key), client)
        except Overloaded:
            refused += 1
    for client in clients[: len(clients) - refused]:
        assert isinstance(client.last, TriuneError) and client.lasts == 1
    wait_until(lambda: not worker.alive)
    with pytest.raises(Overloaded):
        worker.submit(request(9), Client())
    worker.close()


def test_an_unexpected_exception_while_submitting_ends_that_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    add = Sampler.add

    def broken(sampler: Sampler, request: Request, *rest: Any) -> None:
        if request.key == 1:
            raise IndexError("a bug of ours")
        add(sampler, request, *rest)

    monkeypatch.setattr(Sampler, "add", broken)
    engine = make_engine(max_sequences=2)
    with working(engine) as worker:
        clients = [Client() for _ in range(4)]
        for key, client in enumerate(clients):
            worker.submit(request(key), client)
        for key, client in enumerate(clients):
            if key == 1:
                assert isinstance(client.last, TriuneError) and "a bug of ours" in str(client.last)
                assert not isinstance(client.last, RequestError), "it is no fault of the client's"
            else:
                client.wait()
                assert text_of(client.chunks) == text_of(run_alone(replace(request(key), key=99)))
        assert worker.alive
    assert not engine.scheduler.running and not engine.scheduler.waiting


def test_many_threads_may_submit_and_abort_while_it_closes() -> None:
    worker = Worker(make_engine(max_sequences=4), UNHURRIED)
    accepted: list[Client] = []

    def customer(number: int) -> None:
        for count in range(50):
            client = Client()
            try:
                worker.submit(request(1000 * number + count, 5), client)
            except Overloaded:
                return
            accepted.append(client)
            worker.abort(1000 * number + count - 1)

    threads = [threading.Thread(target=customer, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(accepted) > 20)
    worker.close()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert [client.lasts for client in accepted] == [1] * len(accepted)


def wake_ups() -> dict[str, str]:
    """How often each of a worker's threads has run, as the system counts it."""
    threads = [thread for thread in threading.enumerate() if thread.name in ("triune-step", "triune-send")]
    status = {t.name: Path(f"/proc/self/task/{t.native_id}/status").read_text() for t in threads}
    return {name: line for name, text in status.items() for line in text.splitlines() if line.startswith("voluntary_ctxt")}


def test_an_idle_worker_sleeps() -> None:
    with working(make_engine()) as worker:
        client = Client()
        worker.submit(request(0), client)
        client.wait()
        wait_until(lambda: not worker._generator.has_work)
        threading.Event().wait(0.05)  # for both threads to settle
        before = wake_ups()
        assert before.keys() == {"triune-step", "triune-send"}
        threading.Event().wait(0.2)
        assert wake_ups() == before, "a thread wakes up without a reason"
