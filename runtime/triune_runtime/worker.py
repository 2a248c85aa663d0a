"""Threads around a generator: one steps it, one sends what it gives. Knows no Triton: a sink is any callable.

Sinks may block (Triton's do, on shared memory), so they never run on the stepping thread. When many streams are live, a
stream's next chunk is not made before its turn to go out: a response costs the server as much as a third of a token.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Container, Iterable, Sequence

from .constraints import Constraint
from .errors import Overloaded, RequestError, TriuneError
from .generation.generator import Generator
from .outbox import DEFAULT_PACE, Delivery, Outbox, Pace, Sink
from .request import Event, FinishReason, Request

LOG = logging.getLogger(__name__)
_Command = Callable[[], list[Event]]
_GAUGE_INTERVAL_S = 0.25  # while stepping
_REST_S = 10.0  # between two looks at memory that nobody needs


class Worker:
    """Runs a generator until closed. Its methods may be called from any thread and do not block.

    Every accepted request gets exactly one last item: a chunk with a finish reason, or an error.
    """

    def __init__(
        self, generator: Generator, pace: Pace = DEFAULT_PACE, on_count: Callable[[int], None] = lambda count: None
    ) -> None:
        """
        Args:
            on_count: told, on any thread, how many requests are here whenever that has changed.
        """
        self._generator = generator
        self._pace, self._on_count = pace, on_count
        self._inbox: queue.SimpleQueue[_Command | None] = queue.SimpleQueue()  # None: stop
        self._changed = threading.Condition()  # guards the outbox and the two flags
        self._outbox = Outbox(pace)
        self._accepting = True
        self._sending = True
        self._gauges_at = -math.inf
        self._rested_at = time.monotonic()
        self._steps = self._sent = 0
        self._resting = True  # the sending thread waits for something to send
        self._stepper = threading.Thread(target=self._step_until_closed, name="triune-step", daemon=True)
        self._sender = threading.Thread(target=self._send_until_closed, name="triune-send", daemon=True)
        self._stepper.start()
        self._sender.start()

    @property
    def alive(self) -> bool:
        """Whether requests are being served."""
        return self._accepting and self._stepper.is_alive() and self._sender.is_alive()

    def steps(self) -> int | None:
        """A number that changes while the stepping thread gets on; None: it has nothing to do."""
        busy = self.alive and self._steps and (self._generator.has_work or not self._inbox.empty())
        return self._steps if busy else None

    def sent(self) -> int | None:
        """As `steps`, of the sending thread."""
        return None if self._resting else self._sent

    @property
    def idle(self) -> bool:
        """Whether nobody is being served."""
        return not len(self._outbox)

    def submit(self, request: Request, sink: Sink, *, leased: bool = False) -> None:
        """Serve `request`: see `submit_group`."""
        self.submit_group([(request, sink)], leased=leased)

    def submit_group(
        self, group: Sequence[tuple[Request, Sink]], constraints: Sequence[Constraint | None] = (), *, leased: bool = False
    ) -> None:
        """Serve requests for one prompt: each sink gets its chunks and its one last item, on the sending thread.

        Args:
            constraints: see `Generator.submit_group`.
            leased: its chunks will be acknowledged, so silence means that its client has left. Otherwise that holds only
                after a first acknowledgement.

        Raises:
            RequestError, Overloaded: see `check_room`.
        """
        with self._changed:
            self.check_room(len(group))
            for request, sink in group:
                self._outbox.open(request.key, sink, leased=leased)
            self._on_count(len(self._outbox))
            self._inbox.put(lambda: self._submit([request for request, _ in group], constraints))

    def check_room(self, count: int) -> None:
        """Check that so many requests can be taken now. Who has several groups asks before the first: all come in, or none.

        Raises:
            RequestError: so many never can.
            Overloaded: too many requests are here already, or the worker is closed or has failed.
        """
        limits = self._generator.limits
        most = limits.max_sequences + limits.max_queue
        with self._changed:
            if not self.alive:
                what, hint = "the server is stopping, or its engine has failed", "send it again, to another server or later"
                raise Overloaded(what, hint, code="stopping")
            if count > most:
                self._generator.metrics.refused("invalid")
                what = f"{count:,} answers are asked for at once; at most {most:,} are served and waited for"
                raise RequestError(what, "send them in several requests", code="too_many_sequences")
            if len(self._outbox) + count > most:
                self._generator.metrics.refused("overloaded")
                raise Overloaded(
                    f"{len(self._outbox):,} requests are here already, the limit is {limits.max_sequences:,} being served "
                    f"and {limits.max_queue:,} waiting",
                    "send it again later",
                )

    def abort(self, key: int, reason: FinishReason = "cancelled") -> None:
        """End a request; its sink still gets its last item."""
        asked_at = time.monotonic()
        self._tell(lambda: self._abort(key, reason, asked_at))

    def abort_id(self, request_id: str) -> None:
        """End every request that its client named `request_id`."""
        self._tell(lambda: self._generator.abort_id(request_id))

    def acknowledge(self, key: int, *, cancelled: bool, index: int | None = None) -> None:
        """The next step has seen chunk `index` of request `key` (None: the latest); `cancelled`: its client has left."""
        with self._changed:
            self._outbox.acknowledge(key, index)
            if cancelled:
                self._outbox.give_up(key)
            self._changed.notify()
        if cancelled:
            self.abort(key)

    def do(self, command: Callable[[], None]) -> threading.Event:
        """Have the stepping thread do something between two steps; the event is set when it has. A failure is logged."""
        done = threading.Event()

        def run() -> list[Event]:
            try:
                command()
            except Exception:  # requests are served on
                LOG.exception("what was to be done between two steps has failed")
            done.set()
            return []

        self._tell(run)
        return done

    def close(self, timeout_s: float = 10.0) -> None:
        """Refuse new requests, answer everyone and stop the threads; one that is stuck for `timeout_s` is left behind."""
        end = time.monotonic() + timeout_s
        with self._changed:
            self._accepting = False
        self._inbox.put(None)
        self._stepper.join(timeout_s / 2)  # the other half is for the sender
        with self._changed:
            self._outbox.fail_rest(_STOPPED)
            self._sending = False
            self._changed.notify()
        self._sender.join(max(end - time.monotonic(), 0.0))

    def _step_until_closed(self) -> None:
        try:
            self._generator.start()
            self._steps = 1
            while self._take_commands():
                self._put(self._generator.step(self._wanted))
                self._steps += 1
                self._set_gauges()
            self._put(self._generator.close())
            self._set_gauges()
            self._end(_STOPPED)
        except BaseException as error:
            LOG.exception("the stepping thread has failed; every request is answered with an error")
            self._end(TriuneError(f"the engine has failed: {error}", "restart the server", code="engine_failed"))

    def _wanted(self) -> Container[int]:
        with self._changed:
            return self._outbox.wanted(time.monotonic())

    def _end(self, error: TriuneError) -> None:
        """Answer whoever has no answer, among them requests that were on their way to the engine."""
        with self._changed:
            self._accepting = False
            self._outbox.fail_rest(error)
            self._changed.notify()

    def _tell(self, command: _Command) -> None:
        """Have the stepping thread do something, while there is one to do it."""
        if self.alive:
            self._inbox.put(command)

    def _take_commands(self) -> bool:
        """Do what other threads asked for; wait for the first request to if there is nothing. False: closing."""
        while True:
            self._rest()
            try:
                command = self._inbox.get(block=not self._generator.has_work, timeout=_REST_S)
            except queue.Empty:
                if self._generator.has_work:
                    return True
                continue
            if command is None:
                return False
            self._put(command())
            self._steps += 1
            self._set_gauges()

    def _rest(self) -> None:
        now = time.monotonic()
        if now - self._rested_at > _REST_S:
            self._rested_at = now
            self._generator.rest()

    def _submit(self, requests: Sequence[Request], constraints: Sequence[Constraint | None]) -> list[Event]:
        try:
            self._generator.submit_group(requests, constraints)
        except TriuneError as error:
            return [Event(request.key, error) for request in requests]
        except Exception as error:  # whatever it is, it is this request's: the others are served on
            LOG.exception("request %d could not be taken in", requests[0].key)
            failed = TriuneError(f"the engine cannot take this request: {error!r}", "see the server's log")
            return [Event(request.key, failed) for request in requests]
        return []

    def _abort(self, key: int, reason: FinishReason, asked_at: float) -> list[Event]:
        events = self._generator.abort(key, reason)
        if events:
            self._generator.metrics.freed(time.monotonic() - asked_at)
        return events

    def _put(self, events: Iterable[Event]) -> None:
        if events:
            with self._changed:
                self._outbox.put(events)
                self._changed.notify()

    def _set_gauges(self) -> None:
        now = time.monotonic()
        if not self._generator.has_work or now - self._gauges_at > _GAUGE_INTERVAL_S:
            self._gauges_at = now
            self._generator.metrics.gauges(self._generator.snapshot())

    def _send_until_closed(self) -> None:
        while (delivery := self._next_delivery()) is not None:
            self._sent += 1
            self._resting = False
            try:
                delivery.sink(delivery.item)
            except BaseException:  # a sink fails when its client has gone: that ends one request, never the sender
                LOG.warning("request %d cannot be answered any more: aborting it", delivery.key, exc_info=True)
                with self._changed:
                    self._outbox.give_up(delivery.key)
                self.abort(delivery.key)
            self._resting = True

    def _next_delivery(self) -> Delivery | None:
        """Wait for the next item that is due; None: everything is sent and nothing will come."""
        with self._changed:
            while True:
                now = time.monotonic()
                for key in self._outbox.expired(now):
                    LOG.warning("no acknowledgement of request %d for %s s: aborting it", key, self._pace.ack_timeout_s)
                    self.abort(key)
                here = len(self._outbox)
                if (delivery := self._outbox.take(now)) is not None:
                    if len(self._outbox) != here:  # its last item, not each of its chunks
                        self._on_count(len(self._outbox))
                    return delivery
                if not self._sending:
                    return None
                wake_at = self._outbox.wake_at()
                self._changed.wait(None if wake_at == math.inf else max(wake_at - now, 0.0))


_STOPPED = Overloaded("the server is stopping", "send it again, to another server or later", code="stopping")
