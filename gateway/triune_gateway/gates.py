"""Refuses at once what the server behind would refuse. Of one event loop; knows no server.

Where the server says how many places it has (`room.py`), a request goes on while there are more than were asked for within the
last second without a word of it yet: those may be on their way.

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
from .room import Room

PROBE_S = 0.1
PATIENCE_S = 0.25  # for a refusal to come; or, if that is longer,
_TIMES = 4.0  # what the last one took, so many times
OLD_S = 1.0  # a word that no other has followed for so long: nobody knows
_ON_THE_WAY_S = 1.0
_MOST = 1000  # places that are known: every client that has been refused by itself is one


class _Gate:
    """What the server has said last of one place."""

    def __init__(self) -> None:
        self._full = False
        self._heard = 0  # number of the request that it was said of
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


class Gates:
    """Of all models and clients."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, room: Room | None = None) -> None:
        """
        Args:
            room: what the server says of itself.
        """
        self._clock, self._room = clock, room or Room()
        self._sent: dict[str, dict[int, Sent]] = {}  # by model and number: the silent ones, where the server says its room
        self._numbers = itertools.count(1)
        self._gates: dict[tuple[str, str | None], _Gate] = {}  # by model and client; None: of all clients

    def refuses(self, model: str, client: str, places: int = 1) -> bool:
        """Whether a request that came now would be refused. Asking changes nothing."""
        now = self._clock()
        if (free := self._room.free(model)) is None:
            return any(gate.refuses(now, places) for gate in self._passed(model, client))
        own = self._gates.get((model, client))
        return free <= self._on_the_way(model, now) or (own is not None and own.refuses(now, places))

    def _on_the_way(self, model: str, now: float) -> int:
        """Places that have been asked for, and that the server may not have counted yet."""
        sent = self._sent.get(model, {})
        while sent and now - next(iter(sent.values())).at > _ON_THE_WAY_S:
            del sent[next(iter(sent))]
        return sum(one.places for one in sent.values())

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
        if self._room.free(model) is not None:
            self._sent.setdefault(model, {})[sent.number] = sent
        return sent

    def _arrived(self, sent: Sent) -> None:
        self._sent.get(sent.model, {}).pop(sent.number, None)

    def heard(self, sent: Sent) -> None:
        """The server has said something else of a request than that it is full."""
        self._arrived(sent)
        for gate in self._passed(sent.model, sent.client):
            gate.hear(sent.number)

    def refused(self, sent: Sent, *, for_all: bool) -> None:
        """The server has refused a request for want of room."""
        self._arrived(sent)
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
        self._arrived(sent)
        for gate in self._passed(sent.model, sent.client):
            gate.forget(sent.number)
            gate.leave(sent.places)

    def _passed(self, model: str, client: str) -> list[_Gate]:
        """The gates on a request's way, of those that have ever been closed."""
        return [self._gates[one] for one in ((model, None), (model, client)) if one in self._gates]

    def _made(self, model: str, client: str | None) -> _Gate:
        if len(self._gates) >= _MOST:
            self._gates = {place: gate for place, gate in self._gates.items() if place[1] is None}
        return self._gates.setdefault((model, client), _Gate())


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
