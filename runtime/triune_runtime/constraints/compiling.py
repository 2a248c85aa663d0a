"""Compiles guides on threads of its own, so that a large one delays neither the steps of others nor their arrival."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from ..errors import Overloaded, RequestError, TriuneError
from ..manifest import EngineManifest
from ..request import Request
from ..text.vocabulary import TokenBytes
from . import Constraint
from .guide import Guide
from .pool import Job, Lane, Pool
from .thinking import AfterThinking

LOG = logging.getLogger(__name__)
_SECONDS = 10.0  # what compiling one guide may take, and what it may wait for that
_SLOW_SECONDS = 0.03  # then it gives way
_MOST_SLOW_MASKS = 64  # they take no more than two threads' time together
_KEPT = 16  # compiled guides, of up to 50 MB each; many requests share one
_MOST_WAITING = 256
_PARAM = "response_format"  # what asks for one, whatever else may
_TAIL = 16  # of a prompt's tokens: more than a marker and the line breaks behind it
Done = Callable[[Constraint | TriuneError | None], None]  # None: cancelled before it was compiled


@dataclass(eq=False)
class _Wanted:
    """A constraint that somebody waits for."""

    guide: Guide
    request: Request
    done: Done
    due: float  # it is looked at again
    began: float | None = None
    job: Job | None = None


class ConstraintCompiler:
    """Makes the constraints of requests; loads the grammar library when the first one comes, if nobody has it loaded before."""

    def __init__(self, manifest: EngineManifest, token_bytes: TokenBytes) -> None:
        self._manifest, self._token_bytes = manifest, token_bytes
        self._compilers, self._masks = Pool("triune-compile"), Pool("triune-mask", most_slow=_MOST_SLOW_MASKS)
        self._changed = threading.Condition()  # guards the four below
        self._wanted: dict[_Wanted, None] = {}  # of whom nobody has been told anything yet
        self._lanes: WeakValueDictionary[Guide, Lane] = WeakValueDictionary()  # a guide is compiled once
        self._watcher: threading.Thread | None = None
        self._closed = False
        self._loading = threading.Lock()  # guards the two below
        self._library: Any = None
        self._kept: OrderedDict[Guide, Any] = OrderedDict()

    def load(self) -> None:
        """Load the grammar library. That lets no other thread run, for a fifth of a second or more."""
        with self._loading:
            self._loaded()

    def submit(self, guide: Guide, request: Request, done: Done) -> None:
        """Compile the guide of `request`; `done` gets its constraint, or why there is none, on another thread.

        Raises:
            Overloaded: too many are waiting already, or the server is stopping.
        """
        with self._changed:
            if self._closed or len(self._wanted) >= _MOST_WAITING:
                said = f"{len(self._wanted)} grammars are waiting to be compiled"
                raise Overloaded(said, "send it again later", param=_PARAM)
            wanted = _Wanted(guide, request, done, time.monotonic() + _SECONDS)
            self._wanted[wanted] = None
            lane = self._lanes.setdefault(guide, Lane())
            wanted.job = self._compilers.put(lane, partial(self._compile, wanted, lane))
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, name="triune-compile-watch", daemon=True)
                self._watcher.start()
            self._changed.notify()

    def cancel(self, request_id: str) -> None:
        """Forget the requests of this id; `done` of each gets None."""
        with self._changed:
            found = [wanted for wanted in self._wanted if wanted.request.id == request_id]
        for wanted in found:
            self._tell(wanted, None)

    def close(self) -> None:
        """Refuse what waits and stop the threads."""
        with self._changed:
            self._closed = True
            waiting = list(self._wanted)
            self._changed.notify()
        for wanted in waiting:
            self._tell(
                wanted, Overloaded("the server is stopping", "send it again, to another server or later", code="stopping")
            )
        self._compilers.close()
        self._masks.close()

    def make(self, guide: Guide, request: Request) -> Constraint:
        """The constraint of the answer to `request`, compiled on this thread.

        Raises:
            RequestError: the guide is wrong, not supported or too large.
        """
        from .grammar import GrammarConstraint

        compiled = self._compiled(guide)
        ends = {t for t in (*self._manifest.stop_token_ids, *request.params.stop_token_ids) if not self._token_bytes[t]}
        inner = GrammarConstraint(compiled, sorted(ends), len(self._token_bytes), self._masks)
        if request.continues:
            inner.follow()
        if (markers := self._manifest.reasoning) is None:
            return inner
        prompt = self._token_bytes.join(request.prompt[-_TAIL:]).rstrip()
        may_open = not prompt.endswith(markers.end.encode())
        return AfterThinking(inner, markers, self._token_bytes, opened=request.thinking_open, may_open=may_open)

    def _loaded(self) -> Any:
        if self._library is None:
            from .grammar import GrammarCompiler

            markers = self._manifest.reasoning
            hidden = () if markers is None else (markers.start.encode(), markers.end.encode())
            self._library = GrammarCompiler(self._token_bytes, hidden)
        return self._library

    def _compiled(self, guide: Guide) -> Any:
        with self._loading:
            library = self._loaded()
            for failed in [one for one, kept in self._kept.items() if kept.failed]:
                del self._kept[failed]
            if guide in self._kept:
                self._kept.move_to_end(guide)
                return self._kept[guide]
            # Now: later this thread may have given way, and to free a large one lets nobody run.
            while len(self._kept) >= _KEPT:
                self._kept.popitem(last=False)
        compiled = library.compile(guide)
        with self._loading:
            self._kept[guide] = compiled
        return compiled

    def _compile(self, wanted: _Wanted, lane: Lane) -> None:
        """On a thread of the pool, which `lane` is held for."""
        with self._changed:
            if wanted not in self._wanted:
                return
            wanted.began = time.monotonic()
            wanted.due = wanted.began + _SLOW_SECONDS
            self._changed.notify()
        result: Constraint | TriuneError
        try:
            result = self.make(wanted.guide, wanted.request)
        except TriuneError as error:
            result = error
        except BaseException:  # the library's panics among them: this request's, not the thread's
            LOG.exception("a guide could not be compiled")
            said = f"the {wanted.guide[0].replace('_', ' ')} cannot be compiled: the grammar library failed"
            result = RequestError(said, "simplify it", code="unsupported")
        self._tell(wanted, result)

    def _tell(self, wanted: _Wanted, result: Constraint | TriuneError | None) -> None:
        """Answer a request, if nobody has."""
        with self._changed:
            if wanted not in self._wanted:
                return
            del self._wanted[wanted]
        if isinstance(result, RequestError) and result.param is None:
            result.param = wanted.request.guide_input or None
        try:
            wanted.done(result)
        except BaseException:
            LOG.exception("a request with a guide could not be handed on")

    def _watch(self) -> None:
        """Let slow ones give way, and answer those that have waited long enough."""
        while True:
            with self._changed:
                if self._closed:
                    return
                now = time.monotonic()
                due = [wanted for wanted in self._wanted if wanted.due <= now]
                for wanted in due:
                    wanted.due = math.inf if wanted.began is None else wanted.began + _SECONDS
                if not due:
                    first = min((wanted.due for wanted in self._wanted), default=math.inf)
                    self._changed.wait(None if first == math.inf else first - now)
            for wanted in due:
                if wanted.began is None:
                    said = "other grammars are still being compiled"
                    self._tell(wanted, Overloaded(said, "send it again later", param=_PARAM))
                elif now - wanted.began < _SECONDS:
                    assert wanted.job is not None, "it has begun"
                    self._compilers.give_way(wanted.job)
                else:
                    said = f"the {wanted.guide[0].replace('_', ' ')} takes more than {_SECONDS:g} s to be compiled"
                    self._tell(wanted, RequestError(said, "simplify it", code="too_large"))
