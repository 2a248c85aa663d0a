"""python -m bench.gpu: an engine of a published shape with random weights on this machine's GPU, and vLLM beside it.

Each runs in a process of its own, one after the other. Prints a table, and one JSON line last.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from triune_runtime.machine import this_machine
from triune_runtime.targets.cuda.plan import FUSED_SWITCH

from ..machine import describe


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--shape", default="1.5b", help="of the checkpoint: 1.5b, 7b, tiny")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--folder", type=Path, default=Path("build/bench-gpu"), help="where checkpoints and engines lie")
    parser.add_argument("--engine", type=Path, help="folder of engine.json; by default one is built")
    parser.add_argument("--prefill-chunk", type=int, default=8192, help="prompt tokens of one step")
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--graph-too", action="store_true", help="once more without the fused kernel")
    parser.add_argument("--no-peer", action="store_true", help="without vLLM, even if it is installed")
    options = parser.parse_args()
    console = Console(stderr=True)
    checkpoint = options.folder / options.shape
    if options.engine is None or not options.no_peer:
        _run(
            [
                sys.executable,
                "-c",
                f"from bench.gpu.shapes import *; write_checkpoint({options.shape!r}, Path({str(checkpoint)!r}))",
            ]
        )
    engine = options.engine or build(checkpoint, options)
    counts = [str(count) for count in options.sequences]
    rest = ["--sequences", *counts, "--repetitions", str(options.repetitions)]
    found: dict[str, Any] = {"triune": _figures("bench.gpu.loop", engine, rest)}
    if options.graph_too:
        found["graph alone"] = _figures("bench.gpu.loop", engine, rest, {FUSED_SWITCH: "off"})
    if not options.no_peer and importlib.util.find_spec("vllm") is not None:
        found["vllm"] = _figures("bench.gpu.peer", checkpoint, rest)
    console.print(table(found))
    machine = this_machine()
    about = {"shape": options.shape, "precision": options.precision, "gpu": str(machine.gpus[0]) if machine.gpus else "none"}
    print(json.dumps({"machine": describe(), **about, "command": sys.argv[1:], **found}))


def build(checkpoint: Path, options: argparse.Namespace) -> Path:
    """Build the engine of a checkpoint; the folder of its engine.json."""
    most = str(max(options.sequences))
    began = time.perf_counter()
    said = _run([
        sys.executable, "-m", "triune_builder", "build", "--model", str(checkpoint), "--target", "cuda",
        "--precision", options.precision, "--verify", "none", "--max-sequences", most, "--max-length", "4096",
        "--prefill-chunk", str(options.prefill_chunk), "--build-dir", str(options.folder / "build"),
    ])  # fmt: skip
    print(f"built in {time.perf_counter() - began:.1f} s", file=sys.stderr)
    return next(Path(said.splitlines()[-1]).rglob("engine.json")).parent


def table(found: dict[str, Any]) -> Table:
    """Medians, a column for each."""
    made = Table(title="512 tokens in, 128 out; medians")
    for name in ("", *found):
        made.add_column(name, justify="left" if not name else "right")
    rows: dict[str, list[str]] = {}
    for figures in found.values():
        told = {
            f"{count} sequences, {what}": _short(one[key])
            for count, one in figures["decode"].items()
            for what, key in (
                ("tokens/s", "tokens_per_s"), ("decode tokens/s", "decode_tokens_per_s"), ("first token ms", "first_token_ms"),
            )
        }  # fmt: skip
        told["prompt of 2,048, ms"] = _short(figures["prefill_2048_ms"])
        told["mixed load, tokens/s"] = _short(figures.get("mixed", {}).get("tokens_per_s"))
        told["start, s"] = f"{sum(figures['start_s'].values()):.1f}"
        for what, value in told.items():
            rows.setdefault(what, []).append(value)
    for what, values in rows.items():
        made.add_row(what, *values)
    return made


def _short(value: Any) -> str:
    if value is None:
        return "-"
    return f"{statistics.median(value) if isinstance(value, list) else value:,.1f}"


def _figures(module: str, folder: Path, rest: list[str], environment: dict[str, str] | None = None) -> Any:
    return json.loads(_run([sys.executable, "-m", module, str(folder), *rest], environment).splitlines()[-1])


def _run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """What a command prints; what it says goes on to the terminal.

    Args:
        environment: what it has beside that of this process.

    Raises:
        SystemExit: it failed.
    """
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=os.environ | (environment or {}))
    if done.returncode:
        raise SystemExit(f"{' '.join(command[1:4])} ... failed with {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main()
