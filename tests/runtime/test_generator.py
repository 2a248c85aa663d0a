"""Any engine may feed tokens in: its answers and its delivery are those of our own loop.

Run: pytest tests/runtime/test_generator.py
"""

from __future__ import annotations

import random
import threading
from typing import ClassVar

from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.drafts import tokens_alone
from fakes.fed_generator import FedGenerator
from fakes.runtime import chunks_of, make_engine, run_alone, text_of
from fakes.sinks import UNHURRIED, Client, Gated, request, working
from triune_runtime.errors import Overloaded
from triune_runtime.generation.generator import Generator
from triune_runtime.generation.loop import StepLoop
from triune_runtime.request import Chunk, Event, Request, SamplingParams
from triune_runtime.worker import Worker

LENGTH = 64


def from_elsewhere(one: Request) -> list[int]:
    """The tokens that our own loop chooses, and more: an engine that does not know when an answer is over."""
    return [*tokens_alone(one, lambda: make_engine(max_length=LENGTH))[len(one.prompt) :], *[3] * LENGTH]


def random_request(rng: random.Random, key: int) -> Request:
    params = SamplingParams(
        max_tokens=rng.choice([None, 1, 7, 30]),
        temperature=rng.choice([0.0, 1.0]),
        stop=rng.choice([(), ("ab",), ("好", "\n")]),
        stop_token_ids=rng.choice([(), (5,)]),
        min_tokens=rng.choice([0, 3]),
        seed=key,
    )
    return Request(key=key, prompt=(3, 4, 2 + key), params=params, stream=rng.random() < 0.7)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_an_answer_fed_from_elsewhere_is_the_one_of_our_own_loop(seed: int) -> None:
    rng = random.Random(seed)
    generator = FedGenerator(from_elsewhere, rng, max_length=LENGTH)
    requests = [random_request(rng, key) for key in range(4)]
    for one in requests:
        generator.submit_group([one])
    events = list[Event]()
    while generator.has_work:
        events += generator.step()
    for one in requests:
        fed, own = chunks_of(events, one.key), run_alone(one, max_length=LENGTH)
        assert (text_of(fed), fed[-1].finish_reason, fed[-1].cut.stop_reason) == (
            text_of(own), own[-1].finish_reason, own[-1].cut.stop_reason,
        )  # fmt: skip
        assert sum(c.new_tokens for c in fed) == sum(c.new_tokens for c in own)
        assert [c.index for c in fed] == list(range(len(fed)))


def test_a_worker_serves_either() -> None:
    kinds: list[Generator] = [make_engine(), FedGenerator(from_elsewhere, random.Random(1))]
    for generator in kinds:
        worker = Worker(generator, UNHURRIED)
        clients = [Client() for _ in range(10)]
        for key, client in enumerate(clients):
            worker.submit(request(key), client)
        for key, client in enumerate(clients):
            assert isinstance(client.last, Chunk) and text_of(client.chunks) == text_of(run_alone(request(key)))
        worker.close()
    assert isinstance(kinds[1], FedGenerator) and kinds[1].started


def test_deadlines_and_closing_end_answers_that_no_token_comes_for() -> None:
    now = [0.0]
    generator = FedGenerator(lambda one: [], random.Random(1), clock=lambda: now[0], most=0)
    generator.submit_group([Request(key=1, prompt=(3,), deadline=5.0)])
    generator.submit_group([Request(key=2, prompt=(3,), id="two")])
    assert generator.step() == []
    now[0] = 6.0
    (late,) = generator.step()
    assert isinstance(late.item, Chunk) and late.item.finish_reason == "deadline"
    assert [event.key for event in generator.abort_id("two")] == [2]
    generator.submit_group([Request(key=3, prompt=(3,))])
    (closed,) = generator.close()
    assert isinstance(closed.item, Overloaded) and not generator.has_work


def test_the_loop_warms_its_runner_up_on_the_stepping_thread_and_closes_it() -> None:
    class Runner(Gated):
        threads: ClassVar[list[str]] = []

        def warm_up(self) -> None:
            self.threads.append(threading.current_thread().name)

        def close(self) -> None:
            self.threads.append("closed")

    runner = Runner()
    runner.gate.set()
    loop: StepLoop = make_engine(runner)
    with working(loop) as worker:
        client = Client()
        worker.submit(request(1), client)
        client.wait()
    assert runner.threads == ["triune-step", "closed"]
