"""python -m bench.accuracy: what r1-nano gets right at every precision, asked of the served engine, with speed and memory.

Held-out problems (models/r1-nano/r1_nano/problems.py), greedy, as many at once as the server has slots. Every precision is
built and verified, served by the real server, asked over gRPC, and stopped. `--save` puts the table into the model card.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from r1_nano.examples import Example
from r1_nano.questions import KINDS, MOST_TOKENS, THREE_BY_TWO, kinds, questions
from r1_nano.scoring import is_right
from triune_builder.comparing.asking import variant_of

from .machine import describe
from .process import ROOT
from .report import replace_between_marks
from .subjects.server import Subject

MODEL_FOLDER = ROOT / "models" / "r1-nano"
PRECISIONS = ("fp32", "bf16", "fp8", "w8a8", "int8", "int4", "int4-gptq")
STREAMS = 16
_TARGETS = {"add": 0.99, "subtract": 0.99, "compare": 0.99, THREE_BY_TWO: 0.95, "expression": 0.90}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One precision."""

    precision: str
    right: dict[str, int]
    asked: dict[str, int]
    tokens: int
    tokens_per_s: float  # of all streams together
    memory_bytes: int  # proportional set size of the server after the run
    weights_bytes: int

    def share(self, task: str) -> float:
        return self.right.get(task, 0) / self.asked[task]


def main() -> None:
    options = _arguments()
    problems = questions(options.count)
    found = []
    for precision in options.precisions:
        Console(stderr=True).print(f"{precision}: {len(problems):,} problems ...")
        found.append(measure(precision, problems, options.build_dir))
    record = {
        "date": date.today().isoformat(),
        "command": " ".join(["python -m bench.accuracy", *sys.argv[1:]]),
        "machine": describe(),
        "streams": STREAMS,
        "precisions": [asdict(m) for m in found],
    }
    Console().print(_table(found))
    if options.save:
        card = MODEL_FOLDER / "README.md"
        card.write_text(replace_between_marks(card.read_text("utf-8"), markdown(found, record)), "utf-8")
        (MODEL_FOLDER / "accuracy.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(json.dumps(record))


def measure(precision: str, problems: Sequence[Example], build_dir: Path) -> Measured:
    """Build, serve, ask, stop."""
    repository = _build(precision, build_dir)
    subject = Subject(str(repository))
    try:
        right, asked, tokens = Counter[str](), Counter[str](), 0
        began = time.perf_counter()
        with ThreadPoolExecutor(STREAMS) as pool:
            for drawn, (answer, count) in zip(problems, pool.map(lambda p: _ask(subject, p), problems), strict=True):
                for task in kinds(drawn):
                    asked[task] += 1
                    right[task] += is_right(drawn, answer)
                tokens += count
        took = time.perf_counter() - began
        memory = sum(p.memory_full_info().pss for p in psutil.Process().children(recursive=True))
    finally:
        subject.close()
    data = repository / "generate" / "1"
    weights = sum(path.stat().st_size for path in data.iterdir() if path.suffix in (".data", ".safetensors"))
    return Measured(
        precision=precision, right=dict(right), asked=dict(asked), tokens=tokens, tokens_per_s=tokens / took,
        memory_bytes=memory, weights_bytes=weights,
    )  # fmt: skip


def _ask(subject: Subject, drawn: Example) -> tuple[str, int]:
    messages: list[Any] = [{"role": role, "content": content} for role, content in drawn.messages]
    done = subject.client.chat(messages, max_tokens=MOST_TOKENS, temperature=0.0, enable_thinking=drawn.thinks)
    return done.text, done.usage.output_tokens


def _build(precision: str, build_dir: Path) -> Path:
    model = "r1-nano-fp8" if precision == "fp8" else "r1-nano"
    if model == "r1-nano-fp8":
        subprocess.run([sys.executable, "-m", "r1_nano.fp8"], check=True, stdout=subprocess.DEVNULL)
    variant = variant_of(precision)
    command = [
        sys.executable, "-m", "triune_builder", "build", f"--model={model}", f"--precision={variant.precision}",
        f"--rounding={variant.rounding}", f"--build-dir={build_dir / precision}", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Path(json.loads(done.stdout.splitlines()[-1])["repository"])


def _rows(found: Sequence[Measured]) -> list[list[str]]:
    rows = []
    for task in KINDS if found else ():
        target = f"{_TARGETS[task]:.0%}" if task in _TARGETS else ""
        rows.append([task, f"{found[0].asked[task]:,}", *(f"{m.share(task):.1%}" for m in found), target])
    rows.append(["tokens/s, 16 streams", "", *(f"{m.tokens_per_s:,.0f}" for m in found), ""])
    rows.append(["server's memory, MB", "", *(f"{m.memory_bytes / 1e6:.0f}" for m in found), ""])
    rows.append(["weights, MB", "", *(f"{m.weights_bytes / 1e6:.1f}" for m in found), ""])
    return rows


def _table(found: Sequence[Measured]) -> Table:
    table = Table("held out", "asked", *(m.precision for m in found), "target")
    for row in _rows(found):
        table.add_row(*row)
    return table


def markdown(found: Sequence[Measured], record: dict[str, Any]) -> str:
    """The table for the model card."""
    machine = record["machine"]
    head = [
        f"{record['date']}, {machine['cores']} cores of {machine['cpu']} ({machine['instructions']}); `{record['command']}`; "
        "everything measured is in [accuracy.json](accuracy.json).",
        "",
        f"| held out | asked | {' | '.join(m.precision for m in found)} | target |",
        f"|---|--:|{'--:|' * len(found)}--:|",
    ]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in _rows(found))])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help="what to measure")
    parser.add_argument("--count", type=int, default=200, help="problems of each task")
    parser.add_argument("--build-dir", type=Path, default=Path("build/accuracy"), help="where the builds go")
    parser.add_argument("--save", action="store_true", help="put the table into the model card")
    return parser.parse_args()


if __name__ == "__main__":
    main()
