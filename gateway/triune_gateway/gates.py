"""Refuses at once what the server behind would refuse. Of one event loop; knows no server.

Where the server says how many places it has, and how many requests have come (`room.py`), a request goes on while there are
more places than are on their way to it: asked for within the last second, and not come yet, if they come in their order. What
others send seems to be ours that has come; then the server refuses what is too much.

Elsewhere what is known is what the server has said of others: it has just refused one, for it is full. A word of the server,
that it is full or any other, tells how things were when it got the request. So words count in the order in which their requests
were sent, not in that in which they came; the one about the latest holds, for a second. While that is that the server is full,
it is still asked
- for as many answers as it has ended for others here since: each leaves a place;
- for one request every `PROBE_S` seconds: whoever else asks the same server leaves places, too;
- for fewer answers at once than it refused.
A request of which it says nothing for much longer than a refusal takes has been taken: it waits there for its turn.

A server that shares itself among its clients may be full for one of them only. Then only that one is refused here.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

from .bearer import CLIENT
from .room import Room, Said

PROBE_S = 0.1
PATIENCE_S = 0.25  # for a refusal to come; or, if that is longer,
_TIMES = 4.0  # what the last one took, so many times
OLD_S = 1.0  # a word that no other has followed for so long: nobody knows
_ON_THE_WAY_S = 1.0
_MOST = 1000  # places that are known: every client that has been refused by itself is one


class _Gate:
    """What the server has said last of one place."""

    def __init__(self, heard: int) -> None:
        self._full = False
        self._heard = heard  # number of the request that it was said of
        self._said_at = 0.0  # when it was said that it is full
        self._least = 0  # answers of the smallest request that was refused; since it is full, as all that follows
        self._room = 0  # places that have been left
        self._probe_at = 0.0
        self._patience_s = PATIENCE_S
        self._silent: dict[int, float] = {}  # requests that nothing was said of, and when they were sent

    def refuses(self, now: float, places: int) -> bool:
        if not self._full:
            return False
        number, sent = next(iter(self._silent.items()), (self._heard, now))
        if now - sent > self._patience_s or now - self._said_at > OLD_S:
            self._open(number)
            return False
        return places >= self._least and self._room <= 0 and now < self._probe_at

    def pass_on(self, number: int, now: float, places: int) -> None:
        if not self._full:
            return
        self._silent[number] = now
        if self._room > 0:
            self._room -= places
        elif places >= self._least:
            self._probe_at = now + PROBE_S

    def hear(self, number: int) -> None:
        """Something else than that it is full."""
        if number > self._heard:
            self._open(number)
        self.forget(number)

    def refused(self, number: int, places: int, sent: float, now: float) -> None:
        self.forget(number)
        if number < self._heard:
            return
        if not self._full:
            self._full, self._least, self._room, self._probe_at = True, places, 0, now + PROBE_S
        self._heard, self._said_at, self._least = number, now, min(self._least, places)
        self._patience_s = max(PATIENCE_S, _TIMES * (now - sent))
        self._silent = {one: since for one, since in self._silent.items() if one > number}

    def _open(self, number: int) -> None:
        self._heard, self._full, self._silent = number, False, {}

    def forget(self, number: int) -> None:
        """Nothing more will be said of a request."""
        self._silent.pop(number, None)

    def leave(self, places: int) -> None:
        if self._full:
            self._room += places


class _Way:
    """What is on its way to a model."""

    def __init__(self) -> None:
        self.sent: dict[int, Sent] = {}  # by number
        self._came = 0  # requests to the server, those of others too

    def send(self, sent: Sent, said: Said) -> None:
        if not self.sent:
            self._came = said.came
        self.sent[sent.number] = sent

    def places(self, said: Said, now: float) -> int:
        """Places of what has not come yet, as far as is known."""
        came, self._came = said.came - self._came, said.came
        if came < 0:  # it was started again
            self.sent.clear()
        while self.sent:
            number, first = next(iter(self.sent.items()))
            if came <= 0 and now - first.at <= _ON_THE_WAY_S:
                break
            came -= first.places
            del self.sent[number]
        return sum(one.places for one in self.sent.values())


class Gates:
    """Of all models and clients."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, room: Room | None = None) -> None:
        """
        Args:
            room: what the server says of itself.
        """
        self._clock, self._room = clock, room or Room()
        self._ways: dict[str, _Way] = {}  # to each model, where the server says its room
        self._numbers = itertools.count(1)
        self._gates: dict[tuple[str, str | None], _Gate] = {}  # by model and client; None: of all clients
        self._heard: dict[str, int] = {}  # by model: the latest request that was not refused, for gates that are made later

    def refuses(self, model: str, client: str, places: int = 1) -> bool:
        """Whether a request that came now would be refused. Asking changes nothing."""
        now = self._clock()
        if (said := self._room.said(model)) is None:
            return any(gate.refuses(now, places) for gate in self._passed(model, client))
        own = self._gates.get((model, client))
        way = self._ways.get(model)
        on_the_way = 0 if way is None else way.places(said, now)
        return said.free <= on_the_way or (own is not None and own.refuses(now, places))

    def enter(self, model: str, client: str, places: int = 1) -> Sent | None:
        """Let a request go on to the server; None: it is refused.

        Args:
            places: of the server that it takes, one for each of its answers.
        """
        if self.refuses(model, client, places):
            return None
        sent = Sent(self, model, client, next(self._numbers), self._clock(), places)
        for gate in self._passed(model, client):
            gate.pass_on(sent.number, sent.at, places)
        if (said := self._room.said(model)) is not None:
            self._ways.setdefault(model, _Way()).send(sent, said)
        return sent

    def _never_came(self, sent: Sent) -> None:
        """For all that is known."""
        if sent.model in self._ways:
            self._ways[sent.model].sent.pop(sent.number, None)

    def heard(self, sent: Sent) -> None:
        """The server has said something else of a request than that it is full."""
        if len(self._heard) >= _MOST:
            self._heard.clear()
        self._heard[sent.model] = max(self._heard.get(sent.model, 0), sent.number)
        for gate in self._passed(sent.model, sent.client):
            gate.hear(sent.number)

    def refused(self, sent: Sent, *, for_all: bool) -> None:
        """The server has refused a request for want of room."""
        self._never_came(sent)
        everyone, own = (self._gates.get((sent.model, client)) for client in (None, sent.client))
        if for_all:
            if own is not None:
                own.forget(sent.number)
            (everyone or self._made(sent.model, None)).refused(sent.number, sent.places, sent.at, self._clock())
        else:
            if everyone is not None:
                everyone.hear(sent.number)
            (own or self._made(sent.model, sent.client)).refused(sent.number, sent.places, sent.at, self._clock())

    def left(self, sent: Sent) -> None:
        """A request that the server did not refuse is over."""
        self._never_came(sent)
        for gate in self._passed(sent.model, sent.client):
            gate.forget(sent.number)
            gate.leave(sent.places)

    def _passed(self, model: str, client: str) -> list[_Gate]:
        """The gates on a request's way, of those that have ever been closed."""
        return [self._gates[one] for one in ((model, None), (model, client)) if one in self._gates]

    def _made(self, model: str, client: str | None) -> _Gate:
        if len(self._gates) >= _MOST:
            self._gates = {place: gate for place, gate in self._gates.items() if place[1] is None}
        return self._gates.setdefault((model, client), _Gate(self._heard.get(model, 0)))


class Sent:
    """A request that went on to the server. Told what becomes of it; the first word of the server counts."""

    def __init__(self, gates: Gates, model: str, client: str, number: int, at: float, places: int) -> None:
        self.model, self.client, self.number, self.at, self.places = model, client, number, at, places
        self._gates = gates
        self._silent = self._under_way = True

    def taken(self) -> None:
        """The server has said something else than that it is full."""
        if self._silent:
            self._silent = False
            self._gates.heard(self)

    def failed(self, code: str | None, param: str | None) -> None:
        """The server has said that it failed, by these words of its error."""
        if code != "overloaded" or param not in (None, CLIENT):  # no room for something else, as for one more grammar
            self.taken()
        elif self._silent:
            self._silent = self._under_way = False
            self._gates.refused(self, for_all=param is None)

    def ended(self) -> None:
        """It is over, whoever ended it."""
        if self._under_way:
            self._silent = self._under_way = False
            self._gates.left(self)
