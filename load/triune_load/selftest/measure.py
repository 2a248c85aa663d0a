"""`triune-load self-test`: streams of the pretended server, what the tool says of them, and what the server really did."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from ..core.checks import CHECKS
from ..core.lengths import Lengths
from ..core.workload import Part
from ..run import run
from ..settings import Load, Settings, Target

Json = dict[str, Any]
FIRST_S = 0.3  # of the pretended server
LAG_LIMIT_MS = 2.0
ERROR_LIMIT = 0.01


@dataclass(frozen=True)
class Comparison:
    """One figure: what the server did, and what the tool says."""

    name: str
    true: float
    told: float

    @property
    def error(self) -> float:
        """How far off, as a share."""
        return abs(self.told - self.true) / max(abs(self.true), 1e-9)


@dataclass(frozen=True)
class Outcome:
    """What a self-test found."""

    comparisons: list[Comparison]
    lag_p99_ms: float
    cpu_share: float
    most_open: int
    result: Json

    @property
    def passed(self) -> bool:
        """Whether the tool kept up and was right."""
        right = all(one.error <= ERROR_LIMIT for one in self.comparisons)
        return right and self.lag_p99_ms <= LAG_LIMIT_MS and bool(self.result["verdict"]["passed"])


def self_test(*, streams: int, tokens_per_s: float, tokens: int, seconds: float, protocol: str, seed: int = 0) -> Outcome:
    """Has the tool ask a pretended server in a process of its own, at the rate that keeps about so many streams open."""
    first_s, gap_s = FIRST_S, 1 / tokens_per_s
    command = [sys.executable, "-m", "triune_load.selftest.server", "0", str(first_s), str(gap_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        rate = streams / (first_s + gap_s * (tokens - 1))
        part = Part(
            input_tokens=Lengths("fixed", (64.0,)), output_tokens=Lengths("fixed", (float(tokens),)),
            kind="chat" if protocol in ("chat", "responses") else "text",
        )  # fmt: skip
        settings = Settings(
            target=Target(url=url, protocol=protocol, metrics_url=f"{url}/metrics"), loads=(Load(kind="rate", value=rate),),
            duration_s=seconds, warmup_s=0.0, parts=(part,), seed=seed, display=False, checks=frozenset(CHECKS),
            command="triune-load self-test",
        )  # fmt: skip
        result = asyncio.run(run(settings))
        truth = httpx.get(f"{url}/truth", timeout=30.0, trust_env=False).json()
    finally:
        process.kill()
        process.wait()
    step = result["steps"][0]
    return Outcome(
        _compare(np.array(truth)[-step["asked"] :], step["figures"]), float(step["tool"]["lag_ms"]["p99"]),
        step["tool"]["cpu_share"], int(max(step["series"]["open"])), result,
    )  # fmt: skip


def _compare(truth: Any, figures: Json) -> list[Comparison]:
    asked, first, last, tokens = truth.T
    latencies = figures["latencies"]
    return [
        Comparison("requests", float(asked.size), float(figures["requests"])),
        Comparison("tokens", float(tokens.sum()), float(figures["output_tokens_in_all"])),
        Comparison("tokens/s", float(tokens.sum() / (last.max() - asked.min())), figures["tokens_per_s"]),
        Comparison("first token, mean, ms", float((first - asked).mean() * 1e3), latencies["first_token_ms"]["mean"]),
        Comparison("first token, p95, ms", float(np.quantile(first - asked, 0.95) * 1e3), latencies["first_token_ms"]["p95"]),
        Comparison(
            "time per token, mean, ms",
            float(((last - first) / (tokens - 1)).mean() * 1e3),
            latencies["time_per_token_ms"]["mean"],
        ),
        Comparison(
            "between tokens, mean, ms", float((last - first).sum() / (tokens - 1).sum() * 1e3), latencies["between_ms"]["mean"]
        ),
        Comparison("end to end, mean, ms", float((last - asked).mean() * 1e3), latencies["end_to_end_ms"]["mean"]),
    ]


def main(arguments: Sequence[str], prog: str) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=256, help="open at a time, about (default %(default)s)")
    parser.add_argument("--tokens-per-s", type=float, default=40.0, help="of each stream (default %(default)s)")
    parser.add_argument("--tokens", type=int, default=128, help="of each answer (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of load (default %(default)s)")
    parser.add_argument("--protocol", default="chat", choices=("chat", "completions", "responses", "generate-stream"))
    args = parser.parse_args(arguments)
    outcome = self_test(
        streams=args.streams, tokens_per_s=args.tokens_per_s, tokens=args.tokens, seconds=args.seconds, protocol=args.protocol
    )
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("figure", "the server's", "this tool's", "off by"):
        table.add_column(name, justify="left" if name == "figure" else "right")
    for one in outcome.comparisons:
        table.add_row(one.name, f"{one.true:,.3f}", f"{one.told:,.3f}", f"{one.error:.2%}")
    console = Console()
    console.print(table)
    console.print(
        f"most streams open: {outcome.most_open}; requests started {outcome.lag_p99_ms:.2f} ms late at p99; "
        f"{outcome.cpu_share:.0%} of a processor"
    )
    for reason in outcome.result["verdict"]["reasons"]:
        console.print(f"  {reason}")
    console.print(
        "✓ passed" if outcome.passed else f"✗ failed: at most {LAG_LIMIT_MS:g} ms late, figures within {ERROR_LIMIT:.0%}"
    )
    return 0 if outcome.passed else 1
