"""python -m bench.precisions: builds every precision and prints its speed, error and size beside each other."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from triune_runtime.manifest import EngineManifest
from triune_runtime.runner import Work
from triune_runtime.targets import make_runner

PRECISIONS = ("fp32", "int8", "int4", "w8a8")
CHUNK = 128
BATCHES = (1, 8, 16)


def build(precision: str, build_dir: Path) -> tuple[Path, dict[str, Any]]:
    """The engine's folder and the build's own figures."""
    options = [f"--precision={precision}", f"--build-dir={build_dir}", "--json"]
    command = [sys.executable, "-m", "triune_builder", "build", *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Path(figures["repository"]) / "generate" / "1", figures


def seconds(run: Callable[[], object], times: int = 7) -> float:
    """Median of several runs."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def speeds(folder: Path) -> dict[str, float]:
    """Prefill and decode tokens/s of the bare runner, decoding with 150 tokens in the cache."""
    runner = make_runner(EngineManifest.load(folder), folder)
    prompt = tuple(range(100, 100 + CHUNK))
    figures = {"prefill": CHUNK / seconds(lambda: runner.run([Work(0, 0, prompt)]))}
    for n in BATCHES:
        for slot in range(n):
            runner.run([Work(slot, 0, prompt), Work(slot, CHUNK, prompt[:22])])
        work = [Work(slot, 150, (prompt[slot],)) for slot in range(n)]
        figures[f"decode {n}"] = n / seconds(lambda work=work: [runner.run(work) for _ in range(5)]) * 5  # type: ignore[misc]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.precisions", description=__doc__)
    parser.add_argument("--build-dir", type=Path, default=Path("build/precisions"), help="where the builds go")
    folder = parser.parse_args().build_dir
    table = Table("precision", "prefill", *(f"decode {n}" for n in BATCHES), "perplexity", "greedy", "MB")
    rows = []
    for precision in PRECISIONS:
        engine, figures = build(precision, folder / precision)
        row = speeds(engine) | {
            "perplexity": figures["perplexity_engine"] / figures["perplexity_reference"] - 1,
            "greedy": figures["greedy_agreement"],
            "megabytes": (engine / "model.data").stat().st_size / 1e6,
        }
        rows.append({"precision": precision} | row)
        table.add_row(
            precision, *(f"{row[k]:.0f}" for k in ("prefill", *(f"decode {n}" for n in BATCHES))),
            f"{row['perplexity']:+.2%}", f"{row['greedy']:.1%}", f"{row['megabytes']:.0f}",
        )  # fmt: skip
    Console().print(table)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
