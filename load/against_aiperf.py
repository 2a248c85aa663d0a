"""The same load, asked by this tool and by NVIDIA's AIPerf in turn, on one running server: do both say the same?

A server is not equally fast twice. So each run's figures are also divided by what the server itself counted meanwhile, and the
two quotients are compared: these may differ by a twentieth.

Run on a quiet machine, with AIPerf in `.venvs/client-aiperf` (`make .venvs/client-aiperf/installed`). Server and tools get
processors of their own, or AIPerf, whose processes keep one busy, takes the server's and measures that:

    taskset -c 0 .venv/bin/triune up
    taskset -c 1 .venv/bin/python load/against_aiperf.py --tokenizer build/smollm2-135m/cpu/repository/generate/1
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

from triune_load.core.prompts import made_up

AIPERF = Path(".venvs/client-aiperf/bin/aiperf")
# what AIPerf calls a figure, what this tool does
FIGURES = {
    "time_to_first_token": ("latencies", "first_token_ms", "mean"),
    "inter_token_latency": ("latencies", "time_per_token_ms", "mean"),
    "request_latency": ("latencies", "end_to_end_ms", "mean"),
    "output_token_throughput": ("tokens_per_s",),
    "request_throughput": ("requests_per_s",),
}
# what the server's own histogram has for each, and the power that makes the quotient one of times
SERVERS = {
    "time_to_first_token": ("vllm:time_to_first_token_seconds", 1),
    "inter_token_latency": ("vllm:inter_token_latency_seconds", 1),
    "request_latency": ("vllm:e2e_request_latency_seconds", 1),
    "output_token_throughput": ("vllm:e2e_request_latency_seconds", -1),
    "request_throughput": ("vllm:e2e_request_latency_seconds", -1),
}
LIMIT = 0.05


def counted(url: str) -> dict[str, tuple[float, float]]:
    """Sum and count of each of the server's histograms."""
    text = httpx.get(url, timeout=10.0).text
    found = {}
    for name in {name for name, _ in SERVERS.values()}:
        parts = (re.search(rf"^{name}_{part}{{.*}} (\S+)$", text, re.MULTILINE) for part in ("sum", "count"))
        found[name] = tuple(float(part[1]) if part else 0.0 for part in parts)
    return found  # type: ignore[return-value]  # pairs


def against_server(figures: dict[str, float], before: dict[str, tuple[float, float]], url: str) -> dict[str, float]:
    """Each figure divided by the server's own for the time since `before`."""
    after, quotients = counted(url), {}
    for name, (histogram, power) in SERVERS.items():
        total, count = (b - a for a, b in zip(before[histogram], after[histogram], strict=True))
        quotients[name] = figures[name] / (total / count * 1000) ** power
    return quotients


def ask_aiperf(args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """AIPerf's figures; milliseconds, and per second."""
    artifacts = folder / "artifacts"
    shutil.rmtree(artifacts, ignore_errors=True)
    command = [
        AIPERF, "profile", "-m", args.model, "--endpoint-type", "chat", "-u", args.url, "--streaming", "--ui", "none",
        "--no-server-metrics", "--no-gpu-telemetry", "--tokenizer", folder / "tokenizer", "--use-server-token-count",
        "--input-file", folder / "prompts.jsonl", "--custom-dataset-type", "single_turn",
        "--dataset-sampling-strategy", "sequential", "--extra-inputs", f"max_tokens:{args.tokens}",
        "--extra-inputs", "ignore_eos:true", "--extra-inputs", "temperature:0", "--request-count", args.requests,
        "--concurrency", args.streams, "--artifact-dir", artifacts,
    ]  # fmt: skip
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=1800)
    if done.returncode:
        sys.exit(f"error: AIPerf failed: {done.stdout[-1500:]}{done.stderr[-1500:]}")
    found = json.loads((artifacts / "profile_export_aiperf.json").read_text("utf-8"))
    return {name: float(found[name]["avg"]) for name in FIGURES}


def ask_ourselves(args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """This tool's figures, under AIPerf's names."""
    command = [
        sys.executable, "-m", "triune_load", "--url", args.url, "--model", args.model, "--streams", args.streams,
        "--requests", args.requests, "--prompts", folder / "prompts.jsonl", "--output-tokens", args.tokens, "--ignore-eos",
        "--repeats", 0, "--quiet", "--json", folder / "ours.json",
    ]  # fmt: skip
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=1800)
    if done.returncode:
        sys.exit(f"error: the load failed: {done.stdout[-1500:]}{done.stderr[-1500:]}")
    figures = json.loads((folder / "ours.json").read_text("utf-8"))["steps"][0]["figures"]
    found = {}
    for name, path in FIGURES.items():
        value = figures
        for part in path:
            value = value[part]
        found[name] = float(value)
    return found


def main() -> int:
    """Asks in turn, prints medians and ratios; 1 if one of those beside the server is off by more than a twentieth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8003")
    parser.add_argument("--metrics", default="http://127.0.0.1:8002/metrics", help="the server's own account")
    parser.add_argument("--model", default="triune")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with the model's tokenizer.json")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--requests", type=int, default=80)
    parser.add_argument("--input-tokens", type=int, default=400, help="of each prompt, about")
    parser.add_argument("--tokens", type=int, default=48, help="of each answer")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tokenizer").mkdir()
        shutil.copy(args.tokenizer / "tokenizer.json", folder / "tokenizer")
        named = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
        (folder / "tokenizer/tokenizer_config.json").write_text(json.dumps(named), "utf-8")
        rng = random.Random(0)
        lines = [json.dumps({"text": made_up(rng, args.input_tokens)}) for _ in range(args.requests)]
        (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        theirs, ours = [], []  # figures, and the same beside the server's
        for number in range(args.rounds):
            asks = [(theirs, ask_aiperf), (ours, ask_ourselves)]
            for kept, ask in asks if number % 2 == 0 else reversed(asks):  # neither is always the first
                before = counted(args.metrics)
                figures = ask(args, folder)
                kept.append((figures, against_server(figures, before, args.metrics)))
    worst = 0.0
    print(f"{'figure':26}{'AIPerf':>12}{'triune-load':>14}{'ratio':>9}{'beside the server':>19}   of each round")
    for name in FIGURES:
        a, b = (statistics.median(figures[name] for figures, _ in kept) for kept in (theirs, ours))
        rounds = [y[name] / x[name] for (_, x), (_, y) in zip(theirs, ours, strict=True)]
        ratio = statistics.median(rounds)
        print(f"{name:26}{a:12.2f}{b:14.2f}{b / a:9.3f}{ratio:19.3f}   {', '.join(f'{one:.3f}' for one in rounds)}")
        worst = max(worst, abs(ratio - 1))
    print(f"off by at most {worst:.1%}; {LIMIT:.0%} are allowed")
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
