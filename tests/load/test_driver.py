"""When requests start and end, in a time that is made up. Run: pytest tests/load/test_driver.py"""

from __future__ import annotations

import asyncio
import itertools
import selectors
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from triune_load.core.answer import Answer, Event
from triune_load.core.request import Request
from triune_load.core.workload import Part, Session, Workload
from triune_load.driver import Driver, Limits


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer when there is nothing else to do."""

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self._now = 100.0
        select = self._selector.select  # type: ignore[attr-defined]

        def jump(timeout: float | None) -> Any:
            self._now += timeout or 0.0
            return select(0)

        self._selector.select = jump  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._now


def virtually(work: Coroutine[Any, Any, None]) -> None:
    loop = VirtualLoop()
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()


class VirtualClock:
    """The time of the loop that runs."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep_until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, at - self.now()))


class Server:
    """A transport that answers after a while."""

    def __init__(self, takes: Callable[[int], float]) -> None:
        self._takes = takes
        self.most = self.now = self.count = 0

    def prepare(self, request: Request) -> Request:
        return request

    async def send(self, prepared: Request, answer: Answer) -> None:
        number, self.count = self.count, self.count + 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self._takes(number))
            at = asyncio.get_running_loop().time()
            answer.take(at, Event(text="Yes.", tokens=1, finish="stop", done=True))
            answer.ended = at
        finally:
            self.now -= 1

    async def stays_open(self) -> bool:
        return True

    async def close(self) -> None:
        pass


def sessions(part: Part | None = None) -> Iterator[Session]:
    workload = Workload([part or Part()])
    return (workload.session(n) for n in itertools.count())


def drive(server: Server, limits: Limits, load: Callable[[Driver], Coroutine[Any, Any, None]]) -> tuple[list[Answer], float]:
    ended: list[Answer] = []
    begin = []

    async def work() -> None:
        driver = Driver(server, VirtualClock(), limits, streams=True, ended=ended.append)
        await load(driver)
        begin.append(driver.begin)

    virtually(work())
    return ended, begin[0]


def test_an_open_loop_starts_requests_when_they_are_due_whatever_the_server_does() -> None:
    server = Server(lambda number: 5.0)
    ended, begin = drive(
        server, Limits(duration_s=10.0), lambda d: d.open_loop(sessions(), iter(n * 0.5 for n in itertools.count()))
    )
    assert [round(a.intended - begin, 6) for a in ended] == [n * 0.5 for n in range(20)]
    assert all(a.started - a.intended < 1e-6 for a in ended)
    assert server.most == 10


def test_a_slow_server_does_not_make_an_open_loop_forget_the_wait() -> None:
    """No coordinated omission: a stall counts for all who should have asked meanwhile."""
    server = Server(lambda number: 10.0 - number)  # all are answered at second 10
    ended, _ = drive(server, Limits(sessions=10), lambda d: d.open_loop(sessions(), iter(float(n) for n in itertools.count())))
    assert sorted(round(a.ended - a.intended) for a in ended) == list(range(1, 11))


def test_a_closed_loop_has_so_many_requests_open_and_asks_when_one_ends() -> None:
    server = Server(lambda number: 1.0)
    ended, begin = drive(server, Limits(duration_s=5.0), lambda d: d.closed_loop(sessions(), [0.0] * 4))
    assert server.most == 4 and len(ended) == 20
    assert {round(a.intended - begin) for a in ended} == {0, 1, 2, 3, 4}


def test_a_closed_loop_asks_as_often_as_it_may() -> None:
    ended, _ = drive(Server(lambda number: 0.1), Limits(sessions=17), lambda d: d.closed_loop(sessions(), [0.0] * 4))
    assert len(ended) == 17 and len({a.request.identity for a in ended}) == 17


def test_streams_begin_over_the_ramp() -> None:
    server = Server(lambda number: 100.0)
    ended, begin = drive(server, Limits(sessions=4), lambda d: d.closed_loop(sessions(), [0.0, 1.0, 2.0, 3.0]))
    assert [round(a.intended - begin) for a in ended] == [0, 1, 2, 3]


def test_a_silent_server_times_out() -> None:
    ended, _ = drive(
        Server(lambda number: 1e9 if number == 1 else 1.0), Limits(sessions=3, timeout_s=8.0),
        lambda d: d.open_loop(sessions(), iter(float(n) for n in itertools.count())),
    )  # fmt: skip
    kinds = [a.failure.kind if a.failure else "" for a in sorted(ended, key=lambda a: a.intended)]
    assert kinds == ["", "timeout", ""]


@pytest.mark.parametrize("closed", [True, False])
def test_what_never_ends_is_given_up_after_the_drain(closed: bool) -> None:
    def load(driver: Driver) -> Coroutine[Any, Any, None]:
        if closed:
            return driver.closed_loop(sessions(), [0.0, 0.0])
        return driver.open_loop(sessions(), iter([0.0, 0.5, 99.0]))

    ended, _ = drive(Server(lambda number: 1e9), Limits(duration_s=2.0, timeout_s=1e6, drain_s=5.0), load)
    assert [a.failure.kind for a in ended if a.failure] == ["not ended"] * 2


def test_turns_of_a_conversation_wait_for_the_answer_and_for_the_user() -> None:
    part = Part(turns=3, think=Part().think)
    ended, begin = drive(
        Server(lambda number: 2.0), Limits(sessions=1), lambda d: d.open_loop(sessions(part), iter([0.0, 1.0]))
    )
    assert [round(a.intended - begin) for a in ended] == [0, 2, 4]
    assert [len(a.request.messages) for a in ended] == [1, 3, 5]
    assert ended[2].request.messages[1] == {"role": "assistant", "content": "Yes."}
