"""python -m bench.speculation: the bare loop with and without drafts, turn by turn, as a table and one JSON line."""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from triune_runtime.errors import TriuneError
from triune_runtime.manifest import EngineManifest
from triune_runtime.request import Request, SamplingParams
from triune_runtime.runner import Work
from triune_runtime.starting import step_loop
from triune_runtime.targets.cpu.runner import OrtRunner
from triune_runtime.text.chat import ChatTemplate
from triune_runtime.text.tokenizer import TextTokenizer

from .machine import busy_share, describe
from .prompts import prompt

STREAMS = (1, 4, 8)
REQUESTS = 8  # of a turn, at least as many as streams


@dataclass(frozen=True, kw_only=True)
class Turn:
    """All requests served once, with drafts or without."""

    answers: tuple[tuple[int, ...], ...]
    tokens: int
    seconds: float
    cpu_s: float
    drafted: int
    accepted: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number of streams; ratios are medians of those of two turns that followed each other."""

    streams: int
    pairs: int
    same: bool  # whether all answers were equal, token for token
    plain_tokens_per_s: float
    drafts_tokens_per_s: float
    speedup: float  # by the clock
    speedup_least: float
    speedup_most: float
    cpu_speedup: float  # by the processor's time, which other programs disturb less
    drafted_share: float  # drafts over tokens
    acceptance: float | None


class Subject:
    """An engine and its prompts."""

    def __init__(self, folder: Path, kind: str, threads: int | None, tokens: int, temperature: float) -> None:
        self.manifest = EngineManifest.load(folder)
        self.runner = OrtRunner(self.manifest, folder, threads=threads)
        self._tokenizer = TextTokenizer.load(folder, self.manifest)
        template = ChatTemplate(self.manifest.chat_template, self.manifest.special_tokens)
        self._prompts = [
            tuple(self._tokenizer.encode(template.render([{"role": "user", "content": text}]))) for text in questions(kind)
        ]
        self._params = SamplingParams(max_tokens=tokens, temperature=temperature)

    def turn(self, streams: int, *, drafts: bool) -> Turn:
        """Serve all prompts, `streams` of them at a time, with an engine that has learned nothing yet."""
        engine = step_loop(self.manifest, self.runner, self._tokenizer.token_bytes(), prefix_caching=False)
        params = dataclasses.replace(self._params, max_drafts=None if drafts else 0)
        waiting = [Request(key=n, prompt=p, params=dataclasses.replace(params, seed=n)) for n, p in enumerate(self._prompts)]
        answers: dict[int, list[int]] = {request.key: [] for request in waiting}
        live = tokens = drafted = accepted = 0
        began, began_cpu = time.perf_counter(), time.process_time()
        while waiting or engine.has_work:
            while waiting and live < streams:
                engine.submit(waiting.pop(0))
                live += 1
            for event in engine.step():
                if isinstance(event.item, TriuneError):
                    raise event.item
                answers[event.key] += event.item.cut.token_ids
                tokens += event.item.new_tokens
                drafted, accepted = drafted + event.item.drafted, accepted + event.item.accepted
                live -= event.last
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
        texts = tuple(tuple(a) for a in answers.values())
        return Turn(answers=texts, tokens=tokens, seconds=seconds, cpu_s=cpu_s, drafted=drafted, accepted=accepted)

    def measure(self, streams: int, pairs: int) -> Row:
        """Turns without and with drafts, the first of a pair being now the one and now the other."""
        with_, without = [], []
        for number in range(pairs):
            for drafts in (False, True) if number % 2 else (True, False):
                (with_ if drafts else without).append(self.turn(streams, drafts=drafts))
        ratios = [b.seconds / a.seconds for a, b in zip(with_, without, strict=True)]
        drafted, accepted = sum(t.drafted for t in with_), sum(t.accepted for t in with_)
        return Row(
            streams=streams,
            pairs=pairs,
            same=len({t.answers for t in with_ + without}) == 1,
            plain_tokens_per_s=statistics.median(t.tokens / t.seconds for t in without),
            drafts_tokens_per_s=statistics.median(t.tokens / t.seconds for t in with_),
            speedup=statistics.median(ratios),
            speedup_least=min(ratios),
            speedup_most=max(ratios),
            cpu_speedup=statistics.median(b.cpu_s / a.cpu_s for a, b in zip(with_, without, strict=True)),
            drafted_share=drafted / sum(t.tokens for t in with_),
            acceptance=accepted / drafted if drafted else None,
        )


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Least milliseconds of processor time that runs of so many sequences take: what no other program can add to."""

    streams: int
    plain: float  # a token of each
    check: float  # a token of each and its drafts
    guess: float | None  # a draft of one by the MTP layer


def parts(runner: OrtRunner, manifest: EngineManifest, streams: int, times: int = 60) -> Parts:
    """Behind 120 tokens."""
    assert manifest.speculation is not None, "an engine that checks drafts"
    prompt_ids, tokens = tuple(range(20, 140)), tuple(range(30, 30 + manifest.speculation.tokens))
    for slot in range(streams):
        runner.run([Work(slot, 0, prompt_ids)])
    at, guess = len(prompt_ids), None
    if (mtp := runner.mtp) is not None and manifest.speculation.mtp is not None:
        hidden = np.zeros((1, manifest.speculation.mtp.hidden_size), np.float32)
        guess = _least(lambda: mtp.predict(0, at, hidden, tokens[:1]), times)
    return Parts(
        streams=streams,
        plain=_least(lambda: runner.run([Work(slot, at, tokens[:1]) for slot in range(streams)]), times),
        check=_least(lambda: runner.run([Work(slot, at, tokens, len(tokens) - 1) for slot in range(streams)]), times),
        guess=guess,
    )


def _least(run: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        began = time.process_time()
        run()
        taken.append(time.process_time() - began)
    return min(taken) * 1e3


def questions(kind: str) -> list[str]:
    """arithmetic: what r1-nano knows; repeat: texts to be said again, which lookup can guess; chat: texts it cannot."""
    if kind == "arithmetic":
        return [f"What is {487 + 61 * n} * {36 + 7 * n}?" for n in range(REQUESTS)]
    if kind == "repeat":
        return [f"Repeat this text word for word, twice:\n\n{prompt(n)}" for n in range(REQUESTS)]
    topics = ("rain", "bread", "the moon", "horses", "music", "glass", "trade", "sleep")
    return [f"Tell me about {topic} in a few sentences." for topic in topics]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.speculation", description=__doc__)
    parser.add_argument(
        "--repository", type=Path, required=True, help="its engine runs; built with --speculation on or an MTP layer"
    )
    parser.add_argument("--kind", choices=("arithmetic", "repeat", "chat"), default="arithmetic", help="what is asked")
    parser.add_argument("--streams", type=int, nargs="+", default=list(STREAMS))
    parser.add_argument("--pairs", type=int, default=5, help="turns with and without drafts")
    parser.add_argument("--tokens", type=int, default=128, help="of an answer, at most")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--threads", type=int, help="of a run; by default every core")
    parser.add_argument("--parts", action="store_true", help="only what single runs take, on a machine that is not quiet")
    options = parser.parse_args()
    folder = options.repository / "generate" / "1"
    subject = Subject(folder, options.kind, options.threads, options.tokens, options.temperature)
    if subject.manifest.speculation is None:
        parser.error("this engine checks no drafts; build it with --speculation on")
    if options.parts:
        for streams in options.streams:
            print(json.dumps(asdict(parts(subject.runner, subject.manifest, streams))))
        return
    busy = busy_share()
    subject.turn(max(options.streams), drafts=True)  # warm
    rows = [subject.measure(streams, options.pairs) for streams in options.streams]
    made = Table(title=f"{subject.manifest.model} {subject.manifest.precision}, {options.kind}: with drafts over without")
    for column in ("streams", "same text", "tokens/s", "with drafts", "speed-up", "by CPU time", "drafted", "accepted"):
        made.add_column(column, justify="right")
    for row in rows:
        made.add_row(
            str(row.streams), "yes" if row.same else "NO", f"{row.plain_tokens_per_s:.0f}", f"{row.drafts_tokens_per_s:.0f}",
            f"{row.speedup:.2f} ({row.speedup_least:.2f} to {row.speedup_most:.2f})", f"{row.cpu_speedup:.2f}",
            f"{row.drafted_share:.0%}", "-" if row.acceptance is None else f"{row.acceptance:.0%}",
        )  # fmt: skip
    Console(width=120).print(made)
    print(json.dumps({"machine": describe() | {"busy_before": round(busy, 2)}, "rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
