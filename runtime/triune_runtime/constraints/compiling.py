"""Compiles guides on threads of its own, so that a large one delays neither the steps of others nor their arrival."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from ..errors import Overloaded, RequestError, TriuneError
from ..manifest import EngineManifest
from ..request import Request
from ..text.vocabulary import TokenBytes
from . import Constraint
from .guide import Guide
from .thinking import AfterThinking

LOG = logging.getLogger(__name__)
_THREADS = 2
_STACK_BYTES = 64 << 20  # the library compiles rules by recursion
_KEPT = 32  # compiled guides; many requests share one
_MOST_WAITING = 256
_TAIL = 16  # of a prompt's tokens: more than a marker and the line breaks behind it
Done = Callable[[Constraint | TriuneError | None], None]  # None: cancelled before it was compiled


class ConstraintCompiler:
    """Makes the constraints of requests; loads the grammar library when the first one comes."""

    def __init__(self, manifest: EngineManifest, token_bytes: TokenBytes) -> None:
        self._manifest, self._token_bytes = manifest, token_bytes
        self._changed = threading.Condition()  # guards all below
        self._jobs: deque[tuple[Guide, Request, Done]] = deque()
        self._compiling: list[Request] = []
        self._left: set[int] = set()  # keys of those whose client has cancelled them meanwhile
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._loading = threading.Lock()  # guards the two below
        self._library: Any = None
        self._kept: OrderedDict[Guide, Any] = OrderedDict()

    def submit(self, guide: Guide, request: Request, done: Done) -> None:
        """Compile the guide of `request`; `done` gets its constraint, or why there is none, on another thread.

        Raises:
            Overloaded: too many are waiting already, or the server is stopping.
        """
        with self._changed:
            if self._closed or len(self._jobs) >= _MOST_WAITING:
                raise Overloaded(f"{len(self._jobs)} grammars are waiting to be compiled", "send it again later")
            if not self._threads:
                self._threads = [_thread(self._work, number) for number in range(_THREADS)]
            self._jobs.append((guide, request, done))
            self._changed.notify()

    def cancel(self, request_id: str) -> None:
        """Forget the requests of this id; `done` of each gets None."""
        with self._changed:
            found = [job for job in self._jobs if job[1].id == request_id]
            self._jobs = deque(job for job in self._jobs if job[1].id != request_id)
            self._left.update(request.key for request in self._compiling if request.id == request_id)
        for *_, done in found:
            done(None)

    def close(self) -> None:
        """Refuse what waits and stop the threads."""
        with self._changed:
            self._closed = True
            waiting, self._jobs = self._jobs, deque()
            self._changed.notify_all()
        for *_, done in waiting:
            done(Overloaded("the server is stopping", "send it again, to another server or later", code="stopping"))

    def make(self, guide: Guide, request: Request) -> Constraint:
        """The constraint of the answer to `request`, compiled on this thread.

        Raises:
            RequestError: the guide is wrong, not supported or too large.
        """
        from .grammar import GrammarConstraint

        matcher = self._matcher(guide)
        ends = {t for t in (*self._manifest.stop_token_ids, *request.params.stop_token_ids) if not self._token_bytes[t]}
        inner = GrammarConstraint(matcher.deep_copy(), sorted(ends), len(self._token_bytes), self._library.beginnings)
        if request.continues:
            inner.follow()
        if (markers := self._manifest.reasoning) is None:
            return inner
        prompt = self._token_bytes.join(request.prompt[-_TAIL:]).rstrip()
        may_open = not prompt.endswith(markers.end.encode())
        return AfterThinking(inner, markers, self._token_bytes, opened=request.thinking_open, may_open=may_open)

    def _matcher(self, guide: Guide) -> Any:
        with self._loading:
            if self._library is None:
                from .grammar import GrammarCompiler

                markers = self._manifest.reasoning
                hidden = () if markers is None else (markers.start.encode(), markers.end.encode())
                self._library = GrammarCompiler(self._token_bytes, hidden)
            if guide in self._kept:
                self._kept.move_to_end(guide)
                return self._kept[guide]
        matcher = self._library.compile(guide)
        with self._loading:
            self._kept[guide] = matcher
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return matcher

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._closed:
                    self._changed.wait()
                if not self._jobs:
                    return
                guide, request, done = self._jobs.popleft()
                self._compiling.append(request)
            result: Constraint | TriuneError | None
            try:
                result = self.make(guide, request)
            except TriuneError as error:
                result = error
            except BaseException as error:  # the library's panics among them: this request's, not the thread's
                LOG.exception("a guide could not be compiled")
                result = RequestError(f"the {guide[0]} cannot be compiled: {error}", "simplify it", code="unsupported")
            with self._changed:
                self._compiling.remove(request)
                if request.key in self._left:
                    self._left.remove(request.key)
                    result = None
            try:
                done(result)
            except BaseException:
                LOG.exception("a request with a guide could not be handed on")


def _thread(work: Callable[[], None], number: int) -> threading.Thread:
    before = threading.stack_size(_STACK_BYTES)
    try:
        thread = threading.Thread(target=work, name=f"triune-compile-{number}", daemon=True)
        thread.start()
    finally:
        threading.stack_size(before)
    return thread
