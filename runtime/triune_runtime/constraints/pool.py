"""Threads that do the grammar library's work, so that no grammar delays whoever steps: the library lets others run meanwhile.

Jobs of one lane are done in their order, one at a time: copies of a matcher share a lexer behind a lock of the library's own,
and who waits for that lock lets nobody run. A job that takes long gives way: its thread goes on with less of the processor,
and another thread takes its place. A job that is known to take long only waits here, for threads of the library's own: so it
keeps all that it has of the processor, and nobody waits for it to let go of the interpreter's lock. Threads are started by one
that never gives way: a new one has no more of the processor than the one that starts it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable

STACK_BYTES = 64 << 20  # the library works by recursion
THREADS = 2
_AGAIN_S = 0.1  # until a thread is asked for again that the system does not give
_MOST_SLOW = 4  # threads that others have the place of, and that are not done yet
_NICER = 10  # a tenth of what others get of the processor. With far less, others would wait for them to let go of the GIL


class Job:
    """One piece of work."""

    def __init__(self, work: Callable[[], None], *, slow: bool) -> None:
        self.work = work
        self.error: BaseException | None = None  # what `work` raised
        self.thread: int | None = None  # while one is at it
        self.slow = slow  # another thread has its place, if there are not too many such
        self.seconds = 0.0  # of the thread's processor time that it took; of any time, if it took long
        self.lowered = self.replaced = False  # what was done about it
        self.over = threading.Event()

    @property
    def done(self) -> bool:
        return self.over.is_set()

    def wait(self, until: float) -> bool:
        """Wait for its end, or until `until` (`time.monotonic`); whether it is done."""
        return self.done or self.over.wait(max(until - time.monotonic(), 0.0))


class Lane:
    """Jobs that must not be done side by side. All of them go to one pool."""

    def __init__(self) -> None:
        self.waiting: deque[Job] = deque()
        self.busy = False  # it waits for a thread, or has one


class Pool:
    """See the module. May be used from any thread."""

    def __init__(self, name: str, threads: int = THREADS, most_slow: int = _MOST_SLOW) -> None:
        self._name, self._wanted, self._most_slow = name, threads, most_slow
        lock = threading.Lock()  # guards all below, and lanes and jobs
        self._changed = threading.Condition(lock)
        self._short = threading.Condition(lock)  # of threads
        self._lanes: deque[Lane] = deque()  # with a job that can be done now
        self._threads = self._free = self._slow = 0  # those that are replaced count as slow alone
        self._keeper: threading.Thread | None = None
        self._closed = False

    def put(self, lane: Lane, work: Callable[[], None], *, slow: bool = False) -> Job:
        """Have `work` done when what is in its lane already is.

        Args:
            slow: it will take long, and does that where it takes nobody's share of the processor.
        """
        job = Job(work, slow=slow)
        with self._changed:
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, name=f"{self._name}-keep", daemon=True)
                self._keeper.start()
            lane.waiting.append(job)
            if not lane.busy:
                lane.busy = True
                self._lanes.append(lane)
                self._wake()
        return job

    def give_way(self, job: Job) -> None:
        """Let others have the place of a job that takes long, if a thread is at it."""
        with self._changed:
            if job.thread is None or job.slow:
                return
            job.slow = job.lowered = True
            lower(job.thread, _NICER)
            self._replace(job)

    def _replace(self, job: Job) -> None:
        """Give the place of a job's thread to another."""
        if self._slow < self._most_slow:
            job.replaced = True
            self._slow += 1
            self._threads -= 1
            if self._lanes:
                self._wake()

    def close(self) -> None:
        """Let the threads end when there is nothing left to do."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._short.notify_all()

    def _wake(self) -> None:
        if self._free:
            self._free -= 1
            self._changed.notify()
        elif self._threads < self._wanted:
            self._short.notify()

    def _keep(self) -> None:
        """Start threads where there are too few."""
        while True:
            with self._changed:
                while not self._lanes or self._threads >= self._wanted:
                    if self._closed:
                        return
                    self._short.wait()
                self._threads += 1
            before = threading.stack_size(STACK_BYTES)
            try:
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
            except RuntimeError:  # the system gives no more just now
                with self._changed:
                    self._threads -= 1
                time.sleep(_AGAIN_S)
            finally:
                threading.stack_size(before)

    def _work(self) -> None:
        while (taken := self._next()) is not None:
            lane, job = taken
            began, used = time.monotonic(), time.thread_time()
            try:
                job.work()
            except BaseException as error:  # the library's panics among them: this job's, not the thread's
                job.error = error
            job.seconds = time.monotonic() - began if job.slow else time.thread_time() - used
            job.work = _nothing  # whose job it is, it belongs to: neither holds the other any longer
            with self._changed:
                job.thread = None
                if lane.waiting:
                    self._lanes.append(lane)
                else:
                    lane.busy = False
                ends = self._over(job)
            job.over.set()
            if ends:
                return

    def _over(self, job: Job) -> bool:
        """Whether its thread ends: it cannot be given back what it had of the processor, and its place may be taken."""
        self._slow -= job.replaced
        self._threads += job.replaced
        ends = job.lowered or self._threads > self._wanted
        self._threads -= ends
        if ends and self._lanes:
            self._wake()
        return ends

    def _next(self) -> tuple[Lane, Job] | None:
        with self._changed:
            while not self._lanes:
                if self._closed:
                    self._threads -= 1
                    return None
                self._free += 1  # whoever wakes it takes that off
                self._changed.wait()
            lane = self._lanes.popleft()
            job = lane.waiting.popleft()
            job.thread = threading.get_native_id()
            if job.slow:
                self._replace(job)
            return lane, job


def lower(thread: int, nicer: int) -> None:
    """Give a thread less of the processor, for good.

    Args:
        thread: as `threading.get_native_id` has it.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + nicer)


def _nothing() -> None: ...
