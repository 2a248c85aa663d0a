"""python -m bench.gpu.distributed: the ensemble with vLLM behind it beside vLLM alone, on one device and on several.

For each number of devices: an engine of target vllm from one checkpoint of random weights; vLLM's engine alone with that
engine's arguments (`bench.gpu.bare`, by the Python that has vLLM); then `triune serve` with the embedded tritonserver, asked
over gRPC from several processes. Each alone on the machine, in processes of its own; the prompts are the same. Of one that
fails or takes too long that is told, and the others follow. Prints one JSON line last, and writes it to --output after each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from triune_runtime.manifest import EngineManifest
from triune_runtime.targets.vllm.finding import find_python
from triune_runtime.targets.vllm.plan import VllmPlan

from ..machine import describe, gpu_memory_mib
from ..serving import Serving
from . import streams
from .__main__ import Stages, build_engine, run
from .clients import Answered, Asked, Clients
from .processors import processor_seconds
from .writing import checkpoint_command

_ROOT = Path(__file__).parents[2]
# NVLink's multicast, which a program may not use where machines are shared: off in all that could.
QUIET = {
    "NCCL_NVLS_ENABLE": "0", "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1", "NVSHMEM_DISABLE_NVLS": "1",
    "VLLM_ALLREDUCE_USE_SYMM_MEM": "0", "VLLM_ALLREDUCE_USE_FLASHINFER": "0",
}  # fmt: skip


def build(checkpoint: Path, devices: int, options: argparse.Namespace) -> Path:
    """Build the engine of a checkpoint; the folder of its engine.json.

    Raises:
        RuntimeError: it failed.
    """
    rest = ["--target", "vllm", "--tensor-parallel", str(devices), "--max-length", str(options.max_length)]
    rest += ["--expert-parallel"] if options.expert_parallel else []
    return build_engine(checkpoint, options.precision, options, [*rest, "--build-dir", str(options.folder / "build")])


def bare(engine: Path, options: argparse.Namespace) -> dict[str, Any]:
    """vLLM alone."""
    command = [str(find_python()), "-m", "bench.gpu.bare", str(engine), "--repetitions", str(options.repetitions)]
    command += ["--prompt", str(options.prompt), "--answer", str(options.answer)]
    command += ["--sequences", *map(str, options.sequences)]
    paths = os.pathsep.join([str(_ROOT / "runtime"), str(_ROOT)])
    around = {"PYTHONPATH": paths, "VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1"}
    around |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "INFO"}
    found: dict[str, Any] = json.loads(run(command, options.limit, around).splitlines()[-1])
    return found


def ensemble(engine: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The whole server."""
    began, found = time.perf_counter(), dict[str, Any]()
    devices = VllmPlan.of(EngineManifest.load(engine)).devices
    logs = None if options.logs is None else options.logs / f"tp{devices}"
    repository = str(engine.absolute().parents[1])
    with (
        Serving(repository, openai=False, limit_s=options.limit, folder=logs) as serving,
        Clients(serving.grpc_url, options.processes) as clients,
    ):
        found["start_s"] = {"all": round(time.perf_counter() - began, 1)}
        at_rest, server = gpu_memory_mib(), psutil.Process(serving.process.pid)
        runs: dict[int, list[list[Answered]]] = {}
        spent: dict[int, dict[str, float]] = {}
        for count, texts, answer, counts in streams.rounds(
            options.sequences, options.repetitions, options.prompt, options.answer
        ):
            before, clock = processor_seconds(server), time.monotonic()
            heard = clients.ask([Asked(text, answer) for text in texts])
            if wrong := [one.tokens for one in heard if one.tokens != answer]:
                raise RuntimeError(f"answers have {wrong[:5]} tokens, {answer} were asked for")
            if counts:
                took, now = time.monotonic() - clock, processor_seconds(server)
                runs.setdefault(count, []).append(heard)
                spent[count] = {name: round((now[name] - before.get(name, 0.0)) / took, 2) for name in now}
        found["decode"] = {
            str(count): {"prompt_tokens": max(one.prompt_tokens for heard in all_heard for one in heard)}
            | streams.figures(all_heard)
            | {"processors": spent[count]}
            for count, all_heard in runs.items()
        }
        found["gpu_memory_mib"] = {"at rest": at_rest, "after": gpu_memory_mib()}
    return found


def beside(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """By the number of streams: medians of the first by those of the second."""
    return {
        count: {
            "tokens_per_s": _ratio(ours["tokens_per_s"], theirs["tokens_per_s"]),
            "first_token_p50": _ratio([ours["first_token_ms"]["p50"]], [theirs["first_token_ms"]["p50"]]),
            "a_token_p50": _ratio([ours["a_token_ms"]["p50"]], [theirs["a_token_ms"]["p50"]]),
        }
        for count, ours in one["decode"].items()
        if (theirs := other["decode"].get(count)) is not None
    }


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return round(statistics.median(ours) / statistics.median(theirs), 3)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.distributed", description=__doc__)
    parser.add_argument("--shape", default="14b", help="of the checkpoint, one of bench.gpu.shapes: 14b, 32b, 70b, ...")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--tensor-parallel", type=int, nargs="+", default=[1, 2], help="numbers of devices")
    parser.add_argument("--expert-parallel", action="store_true", help="devices hold whole experts")
    parser.add_argument("--folder", type=Path, default=Path("build/bench-gpu"), help="where checkpoint and engines lie")
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=512, help="tokens of each prompt, of which each is a letter")
    parser.add_argument("--answer", type=int, default=128, help="tokens of each answer")
    parser.add_argument("--max-length", type=int, default=1024, help="tokens of a sequence that KV memory is there for")
    parser.add_argument("--prefill-chunk", type=int, default=8192, help="prompt tokens of one step")
    parser.add_argument("--processes", type=int, default=max(1, min(12, (os.cpu_count() or 1) // 2)), help="of clients")
    parser.add_argument("--only", choices=["bare", "ensemble"], help="without the other")
    parser.add_argument("--predictions", type=Path, help="JSON file that is put beside what was measured, as it is")
    parser.add_argument("--logs", type=Path, help="folder that keeps the servers' logs")
    parser.add_argument("--output", type=Path, help="JSON file of what was found")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for each of those measured, and for a start")
    options = parser.parse_args()
    os.environ.update(QUIET)
    options.folder, checkpoint = options.folder.absolute(), options.folder.absolute() / options.shape
    stages, found = Stages(options.limit), dict[str, Any]()
    about = {"shape": options.shape, "machine": describe(), "command": sys.argv[1:]}
    if options.predictions is not None:
        about["predicted"] = json.loads(options.predictions.read_text("utf-8"))

    def told() -> str:
        return json.dumps(about | {"measured": found, "stage_s": stages.took_s, "failed": stages.failed})

    stages.run("checkpoint", lambda: run(checkpoint_command(options.shape, checkpoint), options.limit))
    for devices in options.tensor_parallel:
        engine = stages.run(f"build, {devices} devices", lambda n=devices: build(checkpoint, n, options))
        one: dict[str, Any] = found.setdefault(str(devices), {})
        for name, measure in (("bare", bare), ("ensemble", ensemble)):
            if engine is not None and options.only in (None, name):
                one[name] = stages.run(f"{name}, {devices} devices", lambda do=measure, e=engine: do(e, options))
            if one.get("bare") and one.get("ensemble"):
                one["ensemble / bare"] = beside(one["ensemble"], one["bare"])
            if options.output is not None:
                options.output.write_text(told(), "utf-8")
    print(told())
    sys.exit(bool(stages.failed))


if __name__ == "__main__":
    main()
