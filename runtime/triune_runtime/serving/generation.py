"""The generate step: prompt ids and options -> chunks as tensors."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..constraints import Constraint
from ..constraints.compiling import ConstraintCompiler
from ..constraints.guide import Guide
from ..engine import Engine
from ..errors import RequestError, TriuneError
from ..manifest import EngineManifest
from ..options import Options
from ..request import Chunk, Request, TokenLogprob
from ..runners import make_runner
from ..text.tokenizer import load_token_bytes
from ..text.vocabulary import TokenBytes
from ..worker import Worker
from .acknowledgements import AcknowledgementReceiver
from .direct_options import read_options
from .metrics_bridge import MetricFamilies, MetricsBridge
from .tensors import strings

LOG = logging.getLogger(__name__)
Arrays = dict[str, NDArray[Any]]
Reply = Callable[[Arrays | TriuneError, bool], None]  # (tensors or error, whether it is the last)
_WATCH_S = 1.0  # between looks at the worker, and the time for its last errors to reach their clients


def _end_process() -> None:
    os._exit(70)  # EX_SOFTWARE; an ordinary exit would wait for Triton's own threads


class GenerationService:
    """An engine's worker with everything around it that a server needs."""

    def __init__(self, folder: Path, families: MetricFamilies, on_failure: Callable[[], None] = _end_process) -> None:
        """Load the engine in `folder` and start to serve it.

        Args:
            on_failure: called once if the engine fails for good. By default the process ends: whoever watches the server
                then starts it again, where one that only refuses would look healthy for ever.

        Raises:
            ManifestError: the engine cannot be loaded.
        """
        manifest = EngineManifest.load(folder)
        self._token_bytes = load_token_bytes(folder, manifest)
        engine = Engine(manifest, make_runner(manifest, folder), self._token_bytes)
        self._thinks = manifest.reasoning is not None
        self._worker = Worker(engine)
        self._compiler = ConstraintCompiler(manifest, self._token_bytes)
        self._keys = itertools.count(1)
        self._acknowledgements = AcknowledgementReceiver(self._worker.acknowledge)
        self._metrics = MetricsBridge(engine.metrics, families)
        self._closed = threading.Event()
        self._on_failure = on_failure
        threading.Thread(target=self._watch_worker, name="triune-watch", daemon=True).start()

    def start(
        self,
        input_ids: NDArray[np.int32],
        options_json: str,
        *,
        request_id: str,
        timeout_us: int,
        left: Callable[[], bool],
        reply: Reply,
    ) -> None:
        """Serve one request; `reply` is called on another thread, the last time with True.

        Args:
            timeout_us: Triton's own deadline for the request, 0 for none.
            left: whether the client is known to have left; asked now and then while the answer is sent.

        Raises:
            RequestError: the options cannot be read.
            Overloaded: the worker is closed or has failed.
        """
        options = read_options(options_json)
        request_id = request_id or options.request_id
        if options.cancel:
            self._cancel(request_id, reply)
            return
        timeout_s = min((t for t in (options.timeout_s, timeout_us / 1e6) if t), default=None)
        request = Request(
            key=next(self._keys),
            id=request_id,
            prompt=tuple(input_ids.tolist()),
            params=options.params,
            deadline=None if timeout_s is None else time.monotonic() + timeout_s,
            stream=options.stream,
            thinking_open=options.thinking_open,
            separate_reasoning=bool(options.separate_reasoning) and self._thinks,
        )
        answer = _Answer(request, options, self._token_bytes, reply, self._watch(request.key, left))
        if request.params.guide is None:
            self._worker.submit(request, answer)
        else:
            self._compile(request, request.params.guide, answer, reply)

    def close(self) -> None:
        """Answer everyone and stop."""
        self._closed.set()
        self._compiler.close()
        self._worker.close()
        self._acknowledgements.close()
        self._metrics.close()

    def _watch_worker(self) -> None:
        while not self._closed.wait(_WATCH_S):
            if not self._worker.alive:
                LOG.critical("the engine has failed; this process ends")
                self._closed.wait(_WATCH_S)
                self._on_failure()
                return

    def _cancel(self, request_id: str, reply: Reply) -> None:
        if not request_id:
            raise RequestError("cancel is true but the request has no id", "send the id of the request to cancel")
        self._compiler.cancel(request_id)
        self._worker.abort_id(request_id)
        reply(chunk_arrays(Chunk(0, (), 0, 0, 0, "cancelled"), key=0, prompt_tokens=0), True)

    def _compile(self, request: Request, guide: Guide, answer: _Answer, reply: Reply) -> None:
        """Submit `request` when its guide is compiled, on another thread."""

        def done(made: Constraint | TriuneError | None) -> None:
            if made is None:
                reply(chunk_arrays(Chunk(0, (), 0, 0, 0, "cancelled"), key=request.key, prompt_tokens=0), True)
                return
            try:
                if isinstance(made, TriuneError):
                    raise made
                self._worker.submit(dataclasses.replace(request, constraint=made), answer)
            except TriuneError as error:
                reply(error, True)

        self._compiler.submit(guide, request, done)

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


class _Answer:
    """The sink of one request: chunks become tensors."""

    def __init__(
        self, request: Request, options: Options, token_bytes: TokenBytes, reply: Reply, watch: Callable[[], None]
    ) -> None:
        self._key = request.key
        self._prompt = request.prompt
        self._separate = request.separate_reasoning
        self._batched = options.batched
        self._tool_format = options.tool_format
        self._echoed = request.prompt if options.echo else ()
        self._echoed_bytes = len(token_bytes.join(self._echoed))
        self._token_bytes = token_bytes
        self._logprob = 0.0
        self._reply, self._watch = reply, watch

    def __call__(self, item: Chunk | TriuneError) -> None:
        if isinstance(item, TriuneError):
            self._reply(item, True)
            return
        self._logprob += sum(t.logprob for t in item.logprobs)
        arrays = chunk_arrays(item, key=self._key, prompt_tokens=0 if item.index else len(self._prompt))
        if self._separate:
            thought, answer = item.border or (item.byte_start, item.byte_start)
            arrays["byte_range"] = np.array([answer, item.byte_stop, item.byte_start, thought], np.int32)
            arrays["num_reasoning_tokens"] = np.array([item.reasoning_tokens], np.uint32)
        if self._tool_format and item.index == 0:
            arrays["tool_format"] = strings(self._tool_format)
        if item.logprobs:
            arrays |= _logprob_arrays(item.logprobs, self._token_bytes)
            arrays["cum_log_probs"] = np.array([self._logprob], np.float32)
        if self._batched:
            arrays["batch_index"] = arrays["sequence_index"] = np.zeros((1, 1), np.int32)
        if self._echoed:  # one chunk only: an echo is refused with streams
            arrays["token_ids"] = np.concatenate([np.array(self._echoed, np.int32), arrays["token_ids"]])
            arrays["byte_range"] = np.array([0, self._echoed_bytes + item.byte_stop], np.int32)
        self._reply(arrays, item.finish_reason is not None)
        if item.finish_reason is None:
            self._watch()


def chunk_arrays(chunk: Chunk, *, key: int, prompt_tokens: int) -> Arrays:
    """The tensors of a chunk; its counts are of this chunk alone, so that they add up."""
    arrays: Arrays = {
        "token_ids": np.array(chunk.token_ids, np.int32),
        "byte_range": np.array([chunk.byte_start, chunk.byte_stop], np.int32),
        "request_key": np.array([key], np.int64),
        "chunk_index": np.array([chunk.index], np.int32),
        "finish_reason": strings(chunk.finish_reason or ""),
        "num_input_tokens": np.array([prompt_tokens], np.uint32),
        "num_output_tokens": np.array([chunk.new_tokens], np.uint32),
    }
    # What few read is sent only where it says something: every tensor of a response costs the server some 20 µs.
    if chunk.stop_reason:
        arrays["stop_reason"] = strings(chunk.stop_reason)
    return arrays


def _logprob_arrays(tokens: Sequence[TokenLogprob], token_bytes: TokenBytes) -> Arrays:
    """Log probabilities as JSON, with each token's bytes (its text may be part of a character), and as numbers."""
    entries = [
        {
            "token_id": t.token_id, "logprob": t.logprob, "bytes": list(token_bytes[t.token_id]),
            "top": t.top, "top_bytes": [list(token_bytes[token]) for token, _ in t.top],
        }
        for t in tokens
    ]  # fmt: skip
    return {
        "logprobs": strings(json.dumps(entries, separators=(",", ":"))),
        "output_log_probs": np.array([[t.logprob for t in tokens]], np.float32),
    }
