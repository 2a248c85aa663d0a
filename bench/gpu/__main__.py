"""python -m bench.gpu: an engine of a published shape with random weights on this machine's GPU, and vLLM beside it.

Each runs in a process of its own, one after the other; of one that fails or takes too long that is told, and the others follow.
Prints a table, and one JSON line last.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from triune_runtime.machine import this_machine
from triune_runtime.targets.cuda.plan import FUSED_SWITCH

from ..machine import describe
from .plot import speeds
from .writing import checkpoint_command


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--shape", default="1.5b", help="of the checkpoint: 1.5b, 7b, tiny")
    parser.add_argument("--precisions", nargs="+", default=["bf16"], help="an engine of each")
    parser.add_argument("--folder", type=Path, default=Path("build/bench-gpu"), help="where checkpoints and engines lie")
    parser.add_argument("--engine", type=Path, help="folder of engine.json; by default one is built")
    parser.add_argument("--prefill-chunk", type=int, default=8192, help="prompt tokens of one step")
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--graph-too", action="store_true", help="once more without the fused kernel")
    parser.add_argument("--no-peer", action="store_true", help="without vLLM, even if it is installed")
    parser.add_argument("--ensemble", action="store_true", help="the first engine once more through Triton, over gRPC")
    parser.add_argument("--plot", type=Path, help="page to draw the speeds on")
    parser.add_argument("--limit", type=float, default=500.0, help="seconds for each of those measured")
    options = parser.parse_args()
    checkpoint = options.folder / options.shape
    stages = Stages(options.limit)
    if options.engine is None or not options.no_peer:
        stages.run("checkpoint", lambda: run(checkpoint_command(options.shape, checkpoint), options.limit))
    counts = [str(count) for count in options.sequences]
    rest = ["--sequences", *counts, "--repetitions", str(options.repetitions)]

    def figures(name: str, module: str, folder: Path, environment: dict[str, str] | None = None) -> None:
        stages.run(name, lambda: _figures(module, folder, rest, options.limit, environment))

    first: Path | None = None
    for precision in options.precisions:
        engine: Path | None = options.engine or stages.run(
            f"build {precision}", lambda p=precision: build(checkpoint, p, options)
        )
        if engine is None:
            continue
        first = first or engine
        name = "triune" if len(options.precisions) == 1 else f"triune {precision}"
        figures(name, "bench.gpu.loop", engine)
        if options.graph_too:
            figures(
                "graph alone" if len(options.precisions) == 1 else f"graph alone {precision}",
                "bench.gpu.loop",
                engine,
                {FUSED_SWITCH: "off"},
            )
    if not options.no_peer and importlib.util.find_spec("vllm") is not None:
        figures("vllm", "bench.gpu.peer", checkpoint)
    ensemble: Any = None
    if options.ensemble and first is not None:
        ensemble = stages.run("ensemble", lambda: _figures("bench.gpu.ensemble", first, rest, options.limit))
    measured = {name: one for name, one in stages.found.items() if isinstance(one, dict) and "decode" in one}
    Console(stderr=True).print(table(measured))
    about = {"shape": options.shape, "precisions": options.precisions, "gpu": _gpu(), "command": sys.argv[1:]}
    if options.plot is not None and measured:
        also = {} if ensemble is None else {"triune, Triton": ensemble["ensemble"]}
        title = f"{options.shape}, 512 tokens in and 128 out, {about['gpu']}"
        options.plot.write_text(speeds(title, measured | also), "utf-8")
    told = measured | ({} if ensemble is None else {"ensemble": ensemble})
    print(json.dumps({"machine": describe(), **about, **told, "stage_s": stages.took_s, "failed": stages.failed}))
    sys.exit(bool(stages.failed))


class Stages:
    """What is done one after the other, whatever becomes of each."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.found: dict[str, Any] = {}
        self.took_s: dict[str, float] = {}
        self.failed: dict[str, str] = {}

    def run(self, name: str, do: Callable[[], Any]) -> Any:
        """Do it, and say how long it took; None if it failed."""
        began = time.perf_counter()
        try:
            self.found[name] = do()
        except (RuntimeError, ValueError, LookupError, subprocess.TimeoutExpired) as error:
            self.failed[name] = str(error)[:500]
        self.took_s[name] = round(time.perf_counter() - began, 1)
        print(f"{name}: {self.failed.get(name, 'done')}, {self.took_s[name]} s", file=sys.stderr, flush=True)
        if isinstance(found := self.found.get(name), dict):
            print(json.dumps({name: found}), file=sys.stderr, flush=True)  # a later one may take the machine with it
        return self.found.get(name)


def build(checkpoint: Path, precision: str, options: argparse.Namespace) -> Path:
    """Build the engine of a checkpoint; the folder of its engine.json.

    Raises:
        RuntimeError: it failed.
    """
    rest = ["--target", "cuda", "--verify", "none", "--max-length", "4096"]
    return build_engine(checkpoint, precision, options, [*rest, "--build-dir", str(options.folder / "build" / precision)])


def build_engine(checkpoint: Path, precision: str, options: argparse.Namespace, rest: list[str]) -> Path:
    """As `build`, for any target.

    Args:
        rest: of the build's options.
    """
    said = run([
        sys.executable, "-m", "triune_builder", "build", "--model", str(checkpoint), "--precision", precision,
        "--max-sequences", str(max(options.sequences)), "--prefill-chunk", str(options.prefill_chunk), *rest,
    ], options.limit)  # fmt: skip
    return next(Path(said.splitlines()[-1]).rglob("engine.json")).parent


def table(found: Mapping[str, dict[str, Any]]) -> Table:
    """Medians, a column for each."""
    made = Table(title="512 tokens in, 128 out; medians")
    for name in ("", *found):
        made.add_column(name, justify="left" if not name else "right")
    each = [_told(figures) for figures in found.values()]
    for what in dict.fromkeys(what for told in each for what in told):
        made.add_row(what, *(told.get(what, "-") for told in each))
    return made


def _told(figures: dict[str, Any]) -> dict[str, str]:
    told = {
        f"{count} sequences, {what}": _short(one[key])
        for count, one in figures["decode"].items()
        for what, key in (
            ("tokens/s", "tokens_per_s"), ("decode tokens/s", "decode_tokens_per_s"), ("first token ms", "first_token_ms"),
        )
    }  # fmt: skip
    told["prompt of 2,048, ms"] = _short(figures.get("prefill_2048_ms"))
    told["mixed load, tokens/s"] = _short(figures.get("mixed", {}).get("tokens_per_s"))
    told["start, s"] = f"{sum(figures['start_s'].values()):.1f}"
    return told


def _short(value: Any) -> str:
    if value is None:
        return "-"
    return f"{statistics.median(value) if isinstance(value, list) else value:,.1f}"


def _gpu() -> str:
    machine = this_machine()
    return str(machine.gpus[0]) if machine.gpus else "none"


def _figures(module: str, folder: Path, rest: list[str], limit_s: float, environment: dict[str, str] | None = None) -> Any:
    return json.loads(run([sys.executable, "-m", module, str(folder), *rest], limit_s, environment).splitlines()[-1])


def run(command: list[str], limit_s: float, environment: dict[str, str] | None = None) -> str:
    """What a command prints; what it says goes on to the terminal.

    Args:
        environment: what it has beside that of this process.

    Raises:
        RuntimeError: it failed.
        TimeoutExpired: it took longer than the limit.
    """
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | (environment or {}), start_new_session=True
    )
    try:
        said, _ = process.communicate(timeout=limit_s)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)  # with what it started: nobody else may have the GPU meanwhile
        process.wait()
        raise
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[1:4])} ... failed with {process.returncode}")
    return said


if __name__ == "__main__":
    main()
