"""python -m triune_builder.comparing.worker: one engine, alone in a process: its speeds, its memory, its greedy answers.

A job as JSON on standard input, what was found as one JSON line on standard output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from triune_runtime.errors import TriuneError
from triune_runtime.interruption import end_on_interrupt
from triune_runtime.manifest import EngineManifest, Limits
from triune_runtime.runner import Runner, Work
from triune_runtime.targets import make_runner

from ..progress import peak_bytes
from ..verify.measure import prefill
from ..verify.speed import measure_speeds
from .rows import PREFILL


def measure(manifest: EngineManifest, engine: Path, prompts: Sequence[Sequence[int]], most: int) -> dict[str, Any]:
    """Speeds, memory, and the tokens that follow each prompt.

    Args:
        engine: the folder of the engine's files.
        most: tokens of an answer.
    """
    runner = make_runner(manifest, engine)
    try:
        runner.warm_up()
        speeds = measure_speeds(runner, manifest.limits, manifest.vocab_size)
        rates = {str(count): count / ms * 1e3 for count, ms in speeds.decode_ms.items()}
        rates[PREFILL] = speeds.prefill_tokens / speeds.prefill_ms * 1e3
        memory, peak = int(psutil.Process().memory_full_info().pss), peak_bytes()
        answers = answer(runner, manifest.limits, prompts, manifest.stop_token_ids, most)
    finally:
        runner.close()
    return {"tokens_per_s": rates, "memory_bytes": memory, "peak_bytes": peak, "answers": answers}


def answer(
    runner: Runner, limits: Limits, prompts: Sequence[Sequence[int]], stops: Sequence[int], most: int
) -> list[list[int]]:
    """The tokens that follow each prompt greedily, up to one of `stops`; as many prompts at once as there are slots.

    Of a prompt that fills a slot, none.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    waiting, live = list(reversed(range(len(prompts)))), dict[int, int]()  # slot -> prompt
    free = list(reversed(range(limits.max_sequences)))
    while waiting or live:
        while waiting and free:
            if len(prompts[waiting[-1]]) >= limits.max_length:
                waiting.pop()  # no room for an answer
                continue
            slot, number = free.pop(), waiting.pop()
            ends = prefill(runner, slot, prompts[number], limits.prefill_chunk)
            answers[number].append(int(ends[len(prompts[number]) - 1].argmax()))
            live[slot] = number
        for slot, number in list(live.items()):
            said, length = answers[number], len(prompts[number]) + len(answers[number])
            if said[-1] in stops or len(said) >= most or length >= limits.max_length:
                free.append(slot)
                del live[slot]
        work = [Work(slot, len(prompts[n]) + len(answers[n]) - 1, (answers[n][-1],)) for slot, n in sorted(live.items())]
        for item, row in zip(work, runner.run(work) if work else (), strict=True):
            answers[live[item.slot]].append(int(row.argmax()))
    return [said[:-1] if said and said[-1] in stops else said for said in answers]


def main() -> None:
    end_on_interrupt()
    job = json.load(sys.stdin)
    manifest = EngineManifest.load(Path(job["manifest"]))
    try:
        found = measure(manifest, Path(job["engine"]), job["prompts"], job["most_tokens"])
    except TriuneError as error:
        found = {"error": str(error.args[0])}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
