"""Trains r1-nano: one command, resumable. Run: python -m r1_nano.train --minutes 15 --out DIR --work DIR

The same command again goes on where a run stopped. A run is planned in minutes of training, or in steps, which makes it
reproducible to the bit on one machine.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch
from tokenizers import Tokenizer

from .data import Blocks
from .export import export
from .measure import accuracy, as_rows, sparsity
from .model import Output, count_parameters
from .plan import active_experts, learning_rate
from .problems import MEASURED
from .recipe import Recipe, small_model
from .tokenizer import train_tokenizer
from .trainer import Options, Trainer, on_device


def main() -> None:
    started = time.monotonic()
    arguments = _arguments()
    recipe = Recipe()
    train = replace(recipe.train, seed=arguments.seed, rows=arguments.rows or recipe.train.rows)
    data = recipe.data
    if arguments.tasks:
        data = replace(data, shares={task: data.shares[task] for task in arguments.tasks})
    recipe = replace(recipe, train=train, data=data, model=small_model() if arguments.small else recipe.model)
    arguments.work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(arguments.work / "compiled"))
    torch.set_float32_matmul_precision("high")
    tokenizer = _tokenizer(recipe, arguments.work / "tokenizer.json")
    trainer = Trainer(
        recipe, Options(dense_to_sparse=arguments.dense_to_sparse, l1=arguments.l1), torch.device(arguments.device)
    )
    state = arguments.work / "state.pt"
    if state.exists():
        trainer.load(state)
    _say(f"{count_parameters(trainer.model):,} parameters, from step {trainer.step_number}, {trainer.elapsed_s:.0f} s trained")
    is_done = _train(trainer, tokenizer, arguments, started)
    if not is_done:
        _say(f"stopped at step {trainer.step_number} after {trainer.elapsed_s:.0f} s; the same command goes on")
        return
    export(trainer.model, tokenizer, arguments.out)
    _say(f"exported to {arguments.out}, {time.monotonic() - started:.0f} s since the start")
    if arguments.problems:
        _report(trainer, tokenizer, arguments.out, arguments.problems, arguments.tasks or MEASURED)


def _train(trainer: Trainer, tokenizer: Tokenizer, arguments: argparse.Namespace, started: float) -> bool:
    """Steps until the plan is done (True) or this invocation is to stop (False); the state is saved in both cases."""
    recipe, state = trainer.recipe.train, arguments.work / "state.pt"
    is_stopped = _stop_signal()
    blocks = Blocks(
        tokenizer.to_str(),
        trainer.recipe.data,
        seed=recipe.seed,
        rows=recipe.rows,
        first=trainer.step_number,
        workers=arguments.workers,
    )
    try:
        block = blocks.next()
        refused = trainer.choose_way(block)
        _say(f"{trainer.way}, ready {time.monotonic() - started:.0f} s after the start", *refused)
        log = _Log(trainer, blocks)
        last_saved = last = time.monotonic()
        planned_s = min(60 * arguments.minutes, trainer.elapsed_s + started + arguments.finish_after - last)
        while (progress := _progress(trainer, arguments.steps, planned_s)) < 1.0:
            log.add(trainer.step(block, progress), progress)
            block = blocks.next()
            now = time.monotonic()
            if now - started > 60 * arguments.stop_after or is_stopped():
                _settle(trainer)
                trainer.elapsed_s += time.monotonic() - last
                trainer.save(state)
                return False
            trainer.elapsed_s, last = trainer.elapsed_s + now - last, now
            if now - last_saved > recipe.checkpoint_s:
                trainer.save(state)
                last_saved = last = time.monotonic()
        log.write(1.0)
        trainer.save(state)
        return True
    finally:
        blocks.close()


def _progress(trainer: Trainer, planned_steps: int, planned_s: float) -> float:
    if planned_steps:
        return trainer.step_number / planned_steps
    return trainer.elapsed_s / planned_s if planned_s > 0 else 1.0


def _settle(trainer: Trainer) -> None:
    """Waits for the device: what was asked of it is then done."""
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()


class _Log:
    """A line every few seconds; the device is waited for only then."""

    def __init__(self, trainer: Trainer, blocks: Blocks) -> None:
        self._trainer, self._blocks = trainer, blocks
        self._last = time.monotonic()
        self._steps, self._waited = trainer.step_number, 0.0
        self._output: Output | None = None

    def add(self, output: Output, progress: float) -> None:
        self._output = output
        if time.monotonic() - self._last >= self._trainer.recipe.train.log_s:
            self.write(progress)

    def write(self, progress: float) -> None:
        if self._output is None or self._trainer.step_number == self._steps:
            return
        _settle(self._trainer)
        now, recipe = time.monotonic(), self._trainer.recipe
        seconds, steps = now - self._last, self._trainer.step_number - self._steps
        speed = steps * recipe.train.rows * recipe.data.row_tokens / seconds
        load = self._output.loads / self._output.loads.mean(1, keepdim=True)
        memory = torch.cuda.max_memory_allocated() / 2**30 if self._trainer.device.type == "cuda" else 0.0
        active = active_experts(progress, recipe.model, recipe.train, dense_to_sparse=self._trainer.options.dense_to_sparse)
        _say(
            f"{progress:6.1%} step {self._trainer.step_number:6d} loss {self._output.loss.item():.4f}"
            f" mtp {self._output.mtp_loss.item():.4f} (right {self._output.mtp_right.item():.1%})"
            f" load {load.min().item():.2f}..{load.max().item():.2f} active {active} l1 {self._output.l1.item():.4f}"
            f" lr x{learning_rate(progress, recipe.train):.2f} {speed:,.0f} tokens/s"
            f" waited {(self._blocks.waited_s - self._waited) / seconds:.1%} {memory:.1f} GiB"
        )
        self._last, self._steps, self._waited = now, self._trainer.step_number, self._blocks.waited_s


def _report(trainer: Trainer, tokenizer: Tokenizer, out: Path, count: int, tasks: Sequence[str]) -> None:
    """Held-out accuracy and sparsity, printed and written to quick_evaluation.json."""
    start = time.monotonic()
    scores, wrong = accuracy(trainer.model, tokenizer, trainer.recipe, count=count, tasks=tuple(tasks))
    for score in scores:
        _say(
            f"{score.task:12} {score.right:5d} of {score.asked:5d} {score.accuracy:7.2%}"
            f" {score.tokens / score.asked:6.0f} tokens each"
        )
    blocks = Blocks(tokenizer.to_str(), trainer.recipe.data, seed=trainer.recipe.train.seed, rows=8, first=1 << 24, workers=0)
    tokens, _, _, layout = on_device(blocks.next(), trainer.device, packed=False)
    measured = sparsity(trainer.model, tokens, layout, trainer.recipe)
    _say(f"sparsity {measured}", f"evaluated in {time.monotonic() - start:.0f} s")
    values = {
        "steps": trainer.step_number,
        "trained_s": round(trainer.elapsed_s, 1),
        "options": {"dense_to_sparse": trainer.options.dense_to_sparse, "l1": trainer.options.l1},
        "tasks": as_rows(scores),
        "sparsity": measured,
    }
    (out / "quick_evaluation.json").write_text(json.dumps(values, indent=2) + "\n", "utf-8")
    (out / "wrong.txt").write_text("\n\n".join(wrong) + "\n", "utf-8")


def _tokenizer(recipe: Recipe, path: Path) -> Tokenizer:
    """The run's tokenizer: trained once, then read."""
    if not path.exists():
        train_tokenizer(recipe).save(str(path))
    return Tokenizer.from_file(str(path))


def _stop_signal() -> Callable[[], bool]:
    """Asks whether SIGTERM or SIGINT came; the run then ends after its step, with its state saved."""
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return lambda: bool(received)


def _say(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m r1_nano.train", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("checkpoint"), help="folder for the finished checkpoint")
    parser.add_argument("--work", type=Path, default=Path("work"), help="folder for the run's state: keep it to resume")
    parser.add_argument(
        "--minutes", type=float, default=15.0, help="training time the run is planned for, over all invocations"
    )
    parser.add_argument("--steps", type=int, default=0, help="plan the run in steps instead")
    parser.add_argument(
        "--stop-after", type=float, default=float("inf"), help="minutes after which this invocation saves and stops"
    )
    parser.add_argument(
        "--finish-after", type=float, default=float("inf"),
        help="seconds after the start by which a run planned in minutes is to be done, set-up included: it is planned shorter",
    )  # fmt: skip
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2), help="processes that make data; 0: none"
    )
    parser.add_argument("--rows", type=int, default=0, help="rows of 1,024 tokens a step (default: the recipe's)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="a smaller model, for a look on a CPU")
    parser.add_argument("--tasks", nargs="+", choices=MEASURED, help="teach and measure these only, for small experiments")
    parser.add_argument("--dense-to-sparse", action="store_true", help="all experts active at first, then fewer and fewer")
    parser.add_argument("--l1", type=float, default=0.0, help="weight of the L1 regularizer on the experts' hidden activations")
    parser.add_argument("--problems", type=int, default=300, help="held-out problems of each task at the end; 0: none")
    return parser.parse_args()


if __name__ == "__main__":
    main()
