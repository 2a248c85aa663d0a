"""The generate step: prompt ids and options -> chunks as tensors."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..constraints import Constraint
from ..constraints.compiling import ConstraintCompiler
from ..errors import Overloaded, RequestError, TriuneError
from ..generation.groups import derived_seed
from ..manifest import EngineManifest
from ..options.wire import Options
from ..outbox import Pace, Sink
from ..request import Chunk, Request
from ..starting import generator_of, keep_loaded
from ..text.tokenizer import load_token_bytes
from ..worker import Worker
from . import pulse
from .acknowledgements import AcknowledgementReceiver
from .draining import Draining
from .memory import MemoryLimit
from .metrics_bridge import MetricFamilies, MetricsBridge
from .profiling import Profiling
from .pulse import REQUEST_BEATS, STEP_BEATS, Watched
from .records import Record, Recorder
from .request_log import RequestLog
from .responses import Reply, Responses
from .room import RoomWriter
from .sequence_tensors import chunk_arrays
from .tensors import client_of, request_parameters
from .tracing import Tracer
from .usage import folders, this_process

LOG = logging.getLogger(__name__)
Group = list[tuple[Request, Sink]]
_WATCH_S = 1.0  # between looks at the worker, and the time for its last errors to reach their clients


def _end_process() -> None:
    os._exit(70)  # EX_SOFTWARE; an ordinary exit would wait for Triton's own threads


class GenerationService:
    """An engine's worker with everything around it that a server needs.

    Attributes:
        work: what Triton's thread does, in `with` blocks.
    """

    def __init__(
        self,
        folder: Path,
        families: MetricFamilies,
        on_failure: Callable[[], None] = _end_process,
        *,
        prefix_caching: bool = True,
        client_sequences: int | None = None,
        draining: Draining | None = None,
        room: bytes | None = None,
    ) -> None:
        """Load the engine in `folder` and start to serve it.

        Args:
            prefix_caching, client_sequences: see `step_loop`.
            draining: once it has begun, new requests are refused, and at its end the others are ended.
            room: a path by which what stands before the server finds how many places there are.
            on_failure: called once if the engine fails for good. By default the process ends: whoever watches the server
                then starts it again, where one that only refuses would look healthy for ever.

        Raises:
            ManifestError: the engine cannot be loaded.
        """
        manifest = EngineManifest.load(folder)
        self._token_bytes = load_token_bytes(folder, manifest)
        generator = generator_of(
            manifest, folder, self._token_bytes, prefix_caching=prefix_caching, client_sequences=client_sequences
        )
        self._thinks, self._shares = manifest.reasoning is not None, client_sequences is not None
        self._room = RoomWriter(manifest.limits.max_sequences + manifest.limits.max_queue, engine=folder, link=room)
        self._worker = Worker(generator, Pace(max_chunks_per_s=manifest.limits.chunks_per_s), self._room.say)
        self._compiler = ConstraintCompiler(manifest, self._token_bytes)
        self._compiler.load()  # now, when nobody waits for a token
        self._keys = itertools.count(1)
        self._tracer = Tracer.of_environment(manifest.model)
        log = RequestLog.of_environment(manifest.model, self._token_bytes)
        listeners = [log.write] if log else [], [self._tracer.send] if self._tracer else []
        self._recorder = Recorder(*listeners) if any(listeners) else None
        self._acknowledgements = AcknowledgementReceiver(self._acknowledge, engine=folder)
        usage, self._counts = partial(this_process, folders(folder)), generator.metrics
        self._metrics = MetricsBridge(self._counts, families, manifest.model, usage)
        self._draining, self._memory = draining or Draining(), MemoryLimit.of_environment()
        self._closed, self._on_failure = threading.Event(), on_failure
        self._profiling = Profiling.of_environment(manifest.model, generator, self._worker)
        keep_loaded()
        self.work = pulse.begin(Watched(self._worker.steps, STEP_BEATS), Watched(self._worker.sent, REQUEST_BEATS))
        threading.Thread(target=self._watch_worker, name="triune-watch", daemon=True).start()

    def start(
        self,
        input_ids: NDArray[np.int32],
        options_json: Sequence[str],
        *,
        request_id: str,
        timeout_us: int,
        left: Callable[[], bool],
        reply: Reply,
        parameters: Callable[[], str] = str,
    ) -> None:
        """Serve one request; `reply` is called on another thread, the last time with True.

        Args:
            input_ids: the prompts behind each other.
            options_json: one text for each prompt.
            timeout_us: Triton's own deadline for the request, 0 for none.
            left: whether the client is known to have left; asked now and then while the answer is sent.
            parameters: of Triton's request, as JSON; asked where clients share.

        Raises:
            RequestError: the options or the parameters cannot be read.
            Overloaded: the server is about to stop, the worker has failed, or the process has as much memory as it may.
        """
        rows = [Options.from_json(text) for text in options_json]
        if not rows:
            raise RequestError("options are empty", "send one text for each prompt", code="missing_value", param="options")
        request_id = request_id or rows[0].request_id
        if rows[0].cancel:
            self._cancel(request_id, reply)
            return
        client = client_of(request_parameters(parameters)) if self._shares else ""
        if self._recorder is None:
            self._answer(input_ids, rows, request_id, timeout_us, client, left, reply, None)
            return
        record = self._recorder.begin(request_id, rows[0], tuple(input_ids.tolist()))
        try:
            self._answer(input_ids, rows, request_id, timeout_us, client, left, self._recorder.reply(record, reply), record)
        except TriuneError as error:
            self._recorder.end(record, error)
            raise

    def _answer(
        self,
        input_ids: NDArray[np.int32],
        rows: Sequence[Options],
        request_id: str,
        timeout_us: int,
        client: str,
        left: Callable[[], bool],
        reply: Reply,
        record: Record | None,
    ) -> None:
        if self._draining.begun:
            raise Overloaded("the server is stopping", "send it again, to another server or later", code="stopping")
        self._memory.check(idle=self._worker.idle)
        self._worker.check_room(sum(options.best_of for options in rows))
        responses = Responses(self._token_bytes, reply, self._worker.abort)
        groups = []
        for row, (prompt, options) in enumerate(zip(_split(input_ids, rows), rows, strict=True)):
            requests = self._requests(prompt, options, request_id, timeout_us, client)
            watches = [self._watch(request.key, left) for request in requests]
            group = list(zip(requests, responses.expect(requests, options, row, watches), strict=True))
            if self._recorder is not None and record is not None:
                group = [(request, self._recorder.sink(record, request, options, sink)) for request, sink in group]
            groups.append(group)
        for group in groups:
            try:
                self._submit(group, responses)
            except TriuneError as error:  # of one row: the others must not go on
                responses.fail(error)
                return

    def _requests(
        self, prompt: tuple[int, ...], options: Options, request_id: str, timeout_us: int, client: str
    ) -> list[Request]:
        """One request for each sequence that a row asks for."""
        timeout_s = min((t for t in (options.timeout_s, timeout_us / 1e6) if t), default=None)
        first = Request(
            key=next(self._keys),
            id=request_id,
            prompt=prompt,
            params=options.params,
            deadline=None if timeout_s is None else time.monotonic() + timeout_s,
            stream=options.stream,
            thinking_open=options.thinking_open,
            separate_reasoning=bool(options.separate_reasoning) and self._thinks,
            continues=bool(options.echo),
            timed=options.timed or self._recorder is not None,
            client=client,
            guide_input=options.guide_input,
            cache_salt=options.cache_salt,
        )
        seeds = (derived_seed(options.params.seed, index) for index in range(1, options.best_of))
        return [
            first,
            *(replace(first, key=next(self._keys), params=replace(options.params, seed=seed)) for seed in seeds),
        ]

    def close(self) -> None:
        """Answer everyone and stop."""
        self._closed.set()
        self._compiler.close()
        self._worker.close()
        self._acknowledgements.close()
        self._room.close()
        self._metrics.close()
        if self._recorder is not None:
            self._recorder.sweep(0.0)
        if self._tracer is not None:
            self._tracer.close()

    def _acknowledge(self, key: int, *, cancelled: bool) -> None:
        self._worker.acknowledge(key, cancelled=cancelled)
        if self._recorder is not None:
            self._recorder.acknowledged(key)

    def _watch_worker(self) -> None:
        while not self._closed.wait(self._profiling.patience(_WATCH_S)):
            self._profiling.look()
            if self._recorder is not None:
                self._recorder.sweep()
            if refused := self._room.refused():
                self._counts.refused("overloaded", refused)
            if self._draining.begun and time.time() >= self._draining.ends_at:
                LOG.warning("the server is stopping: what is left is ended")
                self._worker.close()
                return
            if not self._worker.alive and not self._closed.is_set():  # in this order: who closes it says so before
                LOG.critical("the engine has failed; this process ends")
                self._closed.wait(_WATCH_S)
                self._on_failure()
                return

    def _cancel(self, request_id: str, reply: Reply) -> None:
        if not request_id:
            hint = "send the id of the one to end"
            raise RequestError("a request that is to end another has no id", hint, code="missing_value", param="id")
        self._compiler.cancel(request_id)
        self._worker.abort_id(request_id)
        reply(chunk_arrays(Chunk.cancelled(), key=0, prompt_tokens=0), True)

    def _submit(self, group: Group, responses: Responses) -> None:
        """Hand a group to the worker; if its answers' form is prescribed, when that is compiled, on another thread."""
        first = group[0][0]
        guide = first.params.guide
        if guide is None:
            self._worker.submit_group(group)
            return

        def done(made: Constraint | TriuneError | None) -> None:
            if made is None:
                for _, sink in group:
                    sink(Chunk.cancelled())
                return
            try:
                if isinstance(made, TriuneError):
                    raise made
                others = [self._compiler.make(guide, request) for request, _ in group[1:]]
                self._worker.submit_group(group, (made, *others))
            except TriuneError as error:
                responses.fail(error)

        self._compiler.submit(guide, first, done)

    def _watch(self, key: int, left: Callable[[], bool]) -> Callable[[], None]:
        """Asks whether a direct client has left at most ten times a second: the question is a message between processes."""
        asked_at = time.monotonic()

        def watch() -> None:
            nonlocal asked_at
            if (now := time.monotonic()) - asked_at > 0.1:
                asked_at = now
                if left():
                    self._worker.abort(key)

        return watch


def _split(input_ids: NDArray[np.int32], rows: Sequence[Options]) -> Iterator[tuple[int, ...]]:
    """The prompt of each row."""
    lengths = [len(input_ids) if options.prompt_tokens is None else options.prompt_tokens for options in rows]
    if sum(lengths) != len(input_ids):
        what = f"input_ids holds {len(input_ids):,} tokens, the options name {sum(lengths):,}"
        raise RequestError(what, "send what tokenize gives", code="invalid_value", param="input_ids")
    start = 0
    for length in lengths:
        yield tuple(input_ids[start : start + length].tolist())
        start += length
