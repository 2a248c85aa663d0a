"""The bare runtime: the engine's loop in one process, no server, no threads."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import onnxruntime

from triune_runtime.errors import TriuneError
from triune_runtime.manifest import EngineManifest
from triune_runtime.request import Request, SamplingParams
from triune_runtime.starting import step_loop
from triune_runtime.targets import make_runner
from triune_runtime.text.tokenizer import TextTokenizer

from ..timing import Stream


class Subject:
    """See `bench.worker.Subject`."""

    def __init__(self, repository: str) -> None:
        folder = Path(repository) / "generate" / "1"
        manifest = EngineManifest.load(folder)
        self._precision = manifest.precision
        self._tokenizer = TextTokenizer.load(folder, manifest)
        runner, table = make_runner(manifest, folder), self._tokenizer.token_bytes()
        self._engine = step_loop(manifest, runner, table, prefix_caching=False)  # what is measured is to be computed
        self._keys = itertools.count(1)

    def about(self) -> dict[str, Any]:
        return {"onnxruntime": onnxruntime.__version__, "precision": self._precision}

    def generate(self, prompts: list[str], tokens: int) -> list[Stream]:
        sent = time.perf_counter()
        arrivals: dict[int, list[tuple[float, int]]] = {}
        for text in prompts:
            params = SamplingParams(max_tokens=tokens, ignore_eos=True)
            request = Request(key=next(self._keys), prompt=tuple(self._tokenizer.encode(text)), params=params)
            arrivals[request.key] = []
            self._engine.submit(request)
        while self._engine.has_work:
            for event in self._engine.step():
                if isinstance(event.item, TriuneError):
                    raise event.item
                arrivals[event.key].append((time.perf_counter(), event.item.new_tokens))
        return [Stream(sent, tuple(a)) for a in arrivals.values()]

    def close(self) -> None:
        pass  # nothing outlives the process
