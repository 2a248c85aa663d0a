"""python -m bench: measures all subjects, interleaved, and prints a table and one JSON line."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console

from .machine import busy_share, describe
from .process import ROOT, NotInstalled, Process, SubjectFailed
from .report import NAMES, Results, medians, ratios, table, write_docs
from .timing import summarize

STREAMS = (1, 4, 8, 16)
TOKENS = 64
WARM_TOKENS = 8
PEER_PYTHON = Path(".venvs/bench/bin/python")
PEERS_HINT = "python3 -m venv .venvs/bench && .venvs/bench/bin/python -m pip install -r requirements/bench.txt"
_QUIET = 0.1  # busier than this before anything runs, and the figures say little


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One subject: what it is made from, and with which Python."""

    name: str
    arguments: dict[str, Any]
    python: Path


def main() -> None:
    options = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the running subject is stopped
    console = Console(stderr=True)
    busy = busy_share()
    if busy > _QUIET:
        console.print(f"warning: other programs keep this machine {busy:.0%} busy; the figures will say little")
    results: Results = {}
    about: dict[str, Any] = {}
    for number in range(options.rounds):
        for plan in _plans(options):
            console.print(f"round {number + 1} of {options.rounds}: {NAMES[plan.name]} ...")
            try:
                _measure(plan, number, options, results.setdefault(plan.name, {}), about)
            except SubjectFailed as error:
                hint = f"; to install: {PEERS_HINT}" if isinstance(error, NotInstalled) else ""
                problem = f"{error}{hint}".replace(f"{ROOT}/", "")  # the record names no folder of this machine
                console.print(f"  {problem}")
                about.setdefault(plan.name, {})["problem"] = problem
    record = {
        "date": date.today().isoformat(),
        "command": " ".join(["python -m bench", *map(_without_folders, sys.argv[1:])]),
        "machine": describe() | {"busy_before": round(busy, 2)},
        "rounds": options.rounds,
        "tokens": options.tokens,
        "subjects": about,
        "medians": {name: {n: asdict(r) for n, r in counts.items()} for name, counts in medians(results).items()},
        "server_over": ratios(results),
        "each_round": {
            name: {n: [asdict(r) for r in by_round.values()] for n, by_round in counts.items()}
            for name, counts in results.items()
        },
    }
    Console().print(table(results, about))
    if options.save:
        write_docs(record, results, ROOT / "docs")
    print(json.dumps(record))


def _measure(plan: Plan, number: int, options: argparse.Namespace, counts: dict[int, Any], about: dict[str, Any]) -> None:
    """Start a subject, warm it up, measure it once at every number of streams, stop it."""
    with Process(plan.name, plan.arguments, plan.python) as process:
        facts = about.setdefault(plan.name, {})
        facts.update(process.about)
        idle = process.memory_bytes()
        process.generate(max(options.streams), WARM_TOKENS)
        for streams in options.streams:
            try:
                counts.setdefault(streams, {})[number] = summarize(process.generate(streams, options.tokens), options.tokens)
            except ValueError as error:
                raise SubjectFailed(str(error)) from None
        if "idle_memory_bytes" not in facts:  # once: it takes another load
            facts["loaded_memory_bytes"] = process.loaded_memory_bytes(max(options.streams), options.tokens)
            facts["idle_memory_bytes"] = idle


def _plans(options: argparse.Namespace) -> Iterator[Plan]:
    repository, ours = str(options.repository.absolute()), Path(sys.executable)
    gguf, peers = options.gguf or _gguf(options.repository), options.peer_python.absolute()
    known = (
        Plan(name="server", arguments={"repository": repository}, python=ours),
        Plan(name="bare", arguments={"repository": repository}, python=ours),
        Plan(name="openvino", arguments={"gguf": str(gguf)}, python=peers),
        Plan(name="llamacpp", arguments={"gguf": str(gguf), "threads": len(os.sched_getaffinity(0))}, python=peers),
    )
    yield from (plan for plan in known if plan.name in options.subjects)


def _gguf(repository: Path) -> Path:
    """The file that the engine was built from: the newest that the builder keeps beside the repositories."""
    folder = repository.absolute().parents[2] / ".cache" / "checkpoints"
    found = sorted(folder.glob("**/*.gguf"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise SystemExit(f"error: the peers need the model's GGUF file, none is under {folder}\n\nhint: name it: --gguf FILE")
    return found[-1]


def _without_folders(argument: str) -> str:
    """The argument, without the folders of this machine that lead to the file it names."""
    option, equals, value = argument.rpartition("=")
    path = Path(value)
    if path.is_absolute():
        value = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
    return f"{option}{equals}{value}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--repository", type=Path, default=Path("build/smollm2-135m/cpu/repository"), help="what to serve")
    parser.add_argument("--gguf", type=Path, help="the same model for the peers; by default the file it was built from")
    parser.add_argument("--peer-python", type=Path, default=PEER_PYTHON, help="Python with requirements/bench.txt installed")
    parser.add_argument("--subjects", nargs="+", choices=list(NAMES), default=list(NAMES), help="what to measure")
    parser.add_argument("--streams", nargs="+", type=_count, default=list(STREAMS), help="how many at once")
    parser.add_argument("--tokens", type=_count, default=TOKENS, help="length of every answer")
    parser.add_argument("--rounds", type=_count, default=3, help="rounds over all subjects; medians are reported")
    parser.add_argument("--save", action="store_true", help="keep the results in docs/benchmarks.md and docs/benchmarks/")
    options = parser.parse_args()
    _check(parser, options.repository, options.streams)
    return options


def _check(parser: argparse.ArgumentParser, repository: Path, streams: Sequence[int]) -> None:
    if not (repository / "generate" / "1" / "engine.json").exists():
        parser.error(f"{repository} holds no engine; run `make engine` first")
    if max(streams) > max(STREAMS):
        parser.error(f"{max(streams)} streams asked for; every subject is set up for up to {max(STREAMS)}")


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 256:
        raise argparse.ArgumentTypeError(f"{value} is not between 1 and 256")
    return value


if __name__ == "__main__":
    main()
