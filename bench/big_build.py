"""python -m bench.big_build: builds a checkpoint of a published shape and random numbers; reports time, memory and disk.

    python -m bench.big_build --config tests/builder/published/r1-distill-qwen-7b.json --folder /some/disk --precision int4

The numbers are one block of random bfloat16 over and over, so that the checkpoint is written at the disk's speed. Memory
is what the process and its children hold themselves: pages of mapped files, which the system may drop, are not counted.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import psutil
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from triune_builder.errors import BuildError
from triune_builder.graph.promises import Shape, promised_weights
from triune_builder.inputs import Settings
from triune_builder.pipeline import build
from triune_builder.plan import BuildPlan
from triune_builder.quantize.policy import NEAREST

from .machine import describe
from .process import ROOT

_SAMPLE_S = 0.02  # between two looks at the memory
_BLOCK = 1 << 24  # random numbers
_SPREAD = 0.02  # their standard deviation, as in a model before training


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one build took."""

    config: str
    precision: str
    verify: str
    rounding: str
    parameters: int
    checkpoint_bytes: int
    largest_tensor_bytes: int  # in the checkpoint
    seconds: float
    stages: dict[str, float]  # seconds
    peak_bytes: int  # of the process and its children, without pages of files
    stage_peaks: dict[str, int]  # the same, stage by stage
    allowed_bytes: int  # 2 GiB and twice the largest tensor
    written_bytes: int  # that the build added to the disk


def main() -> None:
    """Write the checkpoint unless it is there, build it, print a table and one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m bench.big_build", description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, help="a published config.json, as in tests/builder/published")
    parser.add_argument("--folder", type=Path, required=True, help="where the checkpoint and the build go")
    parser.add_argument("--precision", action="append", help="may be given several times; default: bf16 and int4")
    parser.add_argument("--verify", default="auto", help="full, layers, none or auto")
    parser.add_argument("--rounding", default=NEAREST, help="how codes of four bits are chosen: nearest or gptq")
    parser.add_argument("--layers", type=int, help="build only so many layers")
    parser.add_argument("--shards", type=int, default=4)
    asked = parser.parse_args()
    config = json.loads(asked.config.read_text("utf-8"))["config"]
    config = {key: value for key, value in config.items() if key != "quantization_config"}
    if asked.layers:
        config["num_hidden_layers"] = asked.layers
    model = asked.folder / f"{asked.config.stem}-{config['num_hidden_layers']}-layers"
    if not (model / "config.json").exists():
        write_checkpoint(model, config, asked.shards)
    console = Console(stderr=True)
    found = []
    for precision in asked.precision or ("bf16", "int4"):
        found.append(measure(model.resolve(), (asked.folder / "build").resolve(), precision, asked.verify, asked.rounding))
        console.print(_line(found[-1]), highlight=False, soft_wrap=True)
    print(json.dumps({"machine": describe(), "builds": [asdict(figures) for figures in found]}))


def write_checkpoint(folder: Path, config: Mapping[str, Any], shards: int) -> None:
    """A sharded bfloat16 checkpoint of random numbers; its tokenizer knows single bytes."""
    promised = promised_weights(config)
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0).standard_normal(_BLOCK, np.float32) * np.float32(_SPREAD)
    noise, ones = random.astype(ml_dtypes.bfloat16).tobytes(), np.ones(1, ml_dtypes.bfloat16).tobytes()
    names, places = list(promised.required), {}
    for number in range(shards):
        shard = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        held = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        places |= dict.fromkeys(held, shard)
        with (folder / shard).open("wb") as file:
            file.write(_header({name: promised.required[name] for name in held}))
            for name in held:
                nbytes = 2 * math.prod(promised.required[name])
                source = ones * (nbytes // 2) if name.endswith("norm.weight") else noise
                while nbytes > 0:
                    nbytes -= file.write(memoryview(source)[: min(nbytes, len(source))])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    (folder / "config.json").write_text(json.dumps(dict(config), indent=1))  # last: the folder is whole


def measure(model: Path, build_dir: Path, precision: str, verify: str, rounding: str) -> Figures:
    """Build `model` in a process of its own and look at its memory all the while."""
    command = [sys.executable, "-c", "from bench.big_build import build_here; build_here()"]
    command += [str(model), str(build_dir), precision, verify, rounding]
    began = time.monotonic()
    peak, now, ends, peaks = 0, 0, [began], {}
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None, "stderr was asked for as a pipe"
        family = psutil.Process(process.pid)
        lines = _lines(process.stderr.fileno())
        stages: dict[str, float] = {}
        while process.poll() is None:
            held = _held(family)
            peak, now = max(peak, held), max(now, held)
            for line in next(lines):
                sys.stderr.write(line + "\n")
                if " s   peak " in line:
                    ends.append(time.monotonic())
                    stages[line.split()[0]], peaks[line.split()[0]], now = round(ends[-1] - ends[-2], 1), now, 0
            time.sleep(_SAMPLE_S)
    seconds = time.monotonic() - began
    if process.returncode:
        sys.exit(f"the build failed with exit status {process.returncode}")
    shapes = promised_weights(json.loads((model / "config.json").read_text("utf-8")))
    sizes = [math.prod(shape) for shape in shapes.required.values()]
    return Figures(
        config=model.name,
        precision=precision,
        verify=verify,
        rounding=rounding,
        parameters=sum(sizes),
        checkpoint_bytes=2 * sum(sizes),
        largest_tensor_bytes=2 * max(sizes),
        seconds=round(seconds, 1),
        stages=stages,
        peak_bytes=peak,
        stage_peaks=peaks,
        allowed_bytes=(2 << 30) + 4 * max(sizes),
        written_bytes=_written(BuildPlan(model=str(model)).repository(build_dir), build_dir),
    )


def build_here() -> None:
    """Build what the command line's words say. Without a budget: random numbers do not show what quantizing costs."""
    model, build_dir, precision, verify, rounding = sys.argv[1:]
    settings = Settings(build_dir=Path(build_dir))
    try:
        build(BuildPlan(model=model, precision=precision, verify=verify, rounding=rounding), settings, force=True)
    except BuildError as error:
        sys.exit(str(error))


def _header(shapes: Mapping[str, Shape]) -> bytes:
    entries: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _held(root: psutil.Process) -> int:
    """Bytes of memory that the process and its children hold themselves."""
    total = 0
    try:
        for process in (root, *root.children(recursive=True)):
            status = Path(f"/proc/{process.pid}/status").read_text("utf-8")
            total += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith(("RssAnon:", "RssShmem:")))
    except (OSError, psutil.Error):
        return 0  # it has just ended
    return 1024 * total


def _lines(descriptor: int) -> Iterator[Sequence[str]]:
    """Again and again, the whole lines that have come since the last time."""
    os.set_blocking(descriptor, False)
    rest = ""
    while True:
        try:
            rest += os.read(descriptor, 1 << 16).decode("utf-8", "replace")
        except BlockingIOError:
            yield ()
            continue
        *lines, rest = rest.split("\n")
        yield lines


def _written(repository: Path, build_dir: Path) -> int:
    """Bytes of disk that the files of `repository` take, without those that also lie outside of `build_dir`."""
    links = Counter(path.stat().st_ino for path in build_dir.rglob("*") if path.is_file())
    files = {stat.st_ino: stat for stat in (path.stat() for path in repository.rglob("*") if path.is_file())}
    return sum(512 * stat.st_blocks for number, stat in files.items() if links[number] == stat.st_nlink)


def _line(f: Figures) -> str:
    gib = 2**30
    verdict = "within" if f.peak_bytes < f.allowed_bytes else "OVER"
    stages = ", ".join(f"{name} {seconds:g} s {f.stage_peaks[name] / gib:.2f} GiB" for name, seconds in f.stages.items())
    return (
        f"{f.config} {f.precision}: {f.parameters / 1e9:.2f}B parameters in {f.seconds:g} s; "
        f"peak {f.peak_bytes / gib:.2f} GiB, {verdict} the {f.allowed_bytes / gib:.2f} allowed; "
        f"{f.written_bytes / 1e9:.2f} GB written beside a checkpoint of {f.checkpoint_bytes / 1e9:.2f} GB ({stages})"
    )


if __name__ == "__main__":
    main()
