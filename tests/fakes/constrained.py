"""A fake model whose answers can be constrained."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from fakes.runtime import chunks_of, run_out
from fakes.thinking import thinking_engine
from triune_runtime.constraints.compiling import ConstraintCompiler
from triune_runtime.constraints.guide import Guide
from triune_runtime.generation.loop import StepLoop
from triune_runtime.manifest import Limits
from triune_runtime.request import Chunk, Request, SamplingParams
from triune_runtime.starting import step_loop
from triune_runtime.targets.fake.runner import FakeRunner
from triune_runtime.text.tokenizer import load_token_bytes


class Model:
    """A fake model, and what is needed to constrain its answers."""

    def __init__(self, folder: Path, *, thinks: bool) -> None:
        self.manifest = thinking_engine(folder, limits=Limits(max_length=512, max_sequences=8))
        if not thinks:
            self.manifest = dataclasses.replace(self.manifest, reasoning=None)
        self.table = load_token_bytes(folder, self.manifest)
        self.compiler = ConstraintCompiler(self.manifest, self.table)

    def request(
        self, key: int, guide: Guide | None = None, *, opened: bool = False, prompt: tuple[int, ...] = (), **params: Any
    ) -> Request:
        given = SamplingParams(**({"max_tokens": 200, "temperature": 1.0, "seed": key} | params), guide=guide)
        thinks = self.manifest.reasoning is not None
        return Request(
            key=key, prompt=prompt or tuple(range(5 + key % 7)), params=given, thinking_open=opened, separate_reasoning=thinks,
            stream=False,
        )  # fmt: skip

    def submit(self, engine: StepLoop, request: Request) -> None:
        """Have a request served, and its answer held to its guide.

        Raises:
            RequestError: the guide cannot be compiled.
        """
        guide = request.params.guide
        engine.submit(request, None if guide is None else self.compiler.make(guide, request))

    def answers(self, *requests: Request) -> list[Chunk]:
        """The one chunk of each request, served together."""
        engine = step_loop(self.manifest, FakeRunner(self.manifest.vocab_size, self.manifest.stop_token_ids), self.table)
        for request in requests:
            self.submit(engine, request)
        events = run_out(engine)
        for event in events:
            assert isinstance(event.item, Chunk), event.item
        return [chunks_of(events, request.key)[0] for request in requests]

    def text(self, chunk: Chunk) -> str:
        cut = chunk.cut
        begin = cut.border[1] if cut.border else cut.byte_start
        return self.table.join(cut.token_ids)[begin : cut.byte_stop].decode()

    def thought(self, chunk: Chunk) -> str:
        cut = chunk.cut
        assert cut.border is not None
        return self.table.join(cut.token_ids)[cut.byte_start : cut.border[0]].decode("utf-8", "replace")
