"""The same load, asked by this tool and by NVIDIA's AIPerf in turn, on one running server: do both say the same?

Run on a quiet machine, with AIPerf in `.venvs/client-aiperf` (`make .venvs/client-aiperf/installed`). Server and tools get
processors of their own, or AIPerf, whose processes keep one busy, takes the server's and measures that:

    taskset -c 0 .venv/bin/triune up
    taskset -c 1 .venv/bin/python load/against_aiperf.py --tokenizer build/smollm2-135m/cpu/repository/generate/1
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

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
LIMIT = 0.05


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
    """Asks in turn, prints medians and their ratio; 1 if one is off by more than a twentieth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8003")
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
        theirs, ours = [], []
        for number in range(args.rounds):
            asks = [(theirs, ask_aiperf), (ours, ask_ourselves)]
            for kept, ask in asks if number % 2 == 0 else reversed(asks):  # neither is always the first
                kept.append(ask(args, folder))
    worst = 0.0
    print(f"{'figure':26}{'AIPerf':>12}{'triune-load':>14}{'ratio':>9}   of each round")
    for name in FIGURES:
        a, b = (statistics.median(one[name] for one in kept) for kept in (theirs, ours))
        rounds = ", ".join(f"{y[name] / x[name]:.3f}" for x, y in zip(theirs, ours, strict=True))
        print(f"{name:26}{a:12.2f}{b:14.2f}{b / a:9.3f}   {rounds}")
        worst = max(worst, abs(b / a - 1))
    print(f"off by at most {worst:.1%}; {LIMIT:.0%} are allowed")
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
