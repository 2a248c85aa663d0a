"""python -m bench.gpu.scaling: what a second, a fourth and an eighth GPU bring to models of 70B and of R1's width.

    python -m bench.gpu.scaling --gpus 8 --folder /tmp/scaling --seconds 560      # measures, the case of most worth first
    python -m bench.gpu.scaling --folder /tmp/scaling --tables                     # what was measured so far

Before each case `triune plan` says what it expects; then `bench.gpu.distributed` measures vLLM alone and the ensemble. A case
that has a file in --folder/cases is not measured again, so several calls make one table; of one that fails the reason is kept
under its name with `.failed`, and the next call tries it again. No case begins that would end after --seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .writing import checkpoint_command

_CASE_S = 240.0  # the most that a case may take; a first of its shape writes its checkpoint besides
_CHECKPOINT_S = 200.0
STREAMS = (1, 8, 64, 256)
PROMPT, ANSWER = 512, 128  # tokens


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model on some GPUs."""

    shape: str
    precision: str
    gpus: int
    whole_experts: bool = False

    @property
    def series(self) -> str:
        """What differs from others of the same series is the number of GPUs."""
        return f"{self.shape}, {self.precision}" + (", whole experts" if self.whole_experts else "")

    @property
    def name(self) -> str:
        return f"{self.shape}-{self.precision}-tp{self.gpus}" + ("-ep" if self.whole_experts else "")


# 70B in bfloat16 needs 141 GB: two GPUs at least.
CASES = tuple(
    Case(shape=shape, precision=precision, gpus=gpus, whole_experts=whole)
    for shape, precision, whole in (
        ("r1-8-layers", "fp8", False), ("r1-8-layers", "fp8", True), ("70b", "bf16", False), ("70b", "fp8", False),
    )
    for gpus in (8, 4, 2, 1)
    if (precision, gpus) != ("bf16", 1) and not (whole and gpus == 1)
)  # fmt: skip


def predicted(case: Case, checkpoint: Path) -> dict[str, Any]:
    """What `triune plan` expects of it on H200s: tokens/s, seconds to the first token, bytes of a GPU without its KV memory."""
    command = [sys.executable, "-m", "triune_builder", "plan", str(checkpoint), "--gpu", "h200", "--gpus", str(case.gpus)]
    command += ["--tensor-parallel", str(case.gpus), "--precision", case.precision, "--engine", "vllm"]
    command += ["--expert-parallel", "on" if case.whole_experts else "off", "--sequences", str(STREAMS[-1])]
    command += ["--prompt", str(PROMPT), "--output", str(ANSWER), "--json"]
    plan = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=_CASE_S).stdout)
    rank = plan["ranks"][0]
    return {
        "tokens_per_s": {str(one["batch"]): one["overall"] for one in plan["speeds"] if one["batch"] in STREAMS},
        "first_token_s": plan["first_token_s"],
        "bytes": rank["weights"] + rank["activations"] + rank["runtime"],
        "kv_bytes_per_token": rank["kv_bytes_per_token"],
    }


def measure(case: Case, folder: Path) -> None:
    """Leave the figures of `case` in its file.

    Raises:
        RuntimeError: there are none; says why.
    """
    checkpoint = folder / case.shape
    try:
        subprocess.run(checkpoint_command(case.shape, checkpoint), check=True, timeout=_CHECKPOINT_S)
        expected, found = folder / "expected.json", folder / "found.json"
        expected.write_text(json.dumps(predicted(case, checkpoint)), "utf-8")
        command = [sys.executable, "-m", "bench.gpu.distributed", "--shape", case.shape, "--precision", case.precision]
        command += ["--tensor-parallel", str(case.gpus), *(["--expert-parallel"] if case.whole_experts else [])]
        command += ["--sequences", *map(str, STREAMS), "--repetitions", "2", "--prompt", str(PROMPT), "--answer", str(ANSWER)]
        command += ["--folder", str(folder), "--logs", str(folder / "logs" / case.name), "--predictions", str(expected)]
        command += ["--output", str(found), "--limit", str(_CASE_S / 2)]
        found.unlink(missing_ok=True)
        code = subprocess.run(command, stdout=sys.stderr, timeout=_CASE_S).returncode
    except subprocess.SubprocessError as error:
        raise RuntimeError(str(error)) from None
    told = json.loads(found.read_text("utf-8")) if found.exists() else {"failed": f"exit status {code}"}
    if told["failed"]:
        raise RuntimeError(json.dumps(told["failed"]))
    found.replace(_file(case, folder))


def rows(found: Mapping[str, Any]) -> Iterator[list[str]]:
    """A row of the table for each case that was measured.

    Args:
        found: by the names of cases, what their files hold.
    """
    fewest: dict[str, tuple[int, Mapping[str, float]]] = {}
    for case in sorted((case for case in CASES if case.name in found), key=lambda case: (case.series, case.gpus)):
        told = found[case.name]
        one, plan = told["measured"][str(case.gpus)], told["predicted"]
        bare, ensemble = one["bare"], one["ensemble"]
        speeds = {count: statistics.median(figures["tokens_per_s"]) for count, figures in ensemble["decode"].items()}
        gpus, least = fewest.setdefault(case.series, (case.gpus, speeds))
        kv = bare["kv_blocks"] * bare["block_tokens"] * plan["kv_bytes_per_token"]
        memory = statistics.mean(bare["gpu_memory_mib"]["at rest"][: case.gpus])
        yield [
            case.series, str(case.gpus), f"{ensemble['start_s']['all']:.0f}",
            f"{memory / 1024:.1f} ({(plan['bytes'] + kv) / 2**20 / memory:.2f})",
            *(f"{speeds[n]:,.0f} ({plan['tokens_per_s'][n] / speeds[n]:.2f})" for n in speeds),
            " / ".join(f"{one['ensemble / bare'][n]['tokens_per_s']:.3f}" for n in speeds),
            " / ".join(f"{speeds[n] / least[n] / (case.gpus / gpus):.2f}" for n in speeds),
            " / ".join(f"{ensemble['decode'][n]['first_token_ms']['p50']:.0f}" for n in speeds),
            " / ".join(f"{ensemble['decode'][n]['a_token_ms']['p50']:.1f}" for n in speeds),
        ]  # fmt: skip


def table(found: Mapping[str, Any]) -> str:
    """For docs: in brackets what the plan expected by what was measured."""
    heads = ["model", "GPUs", "start, s", "GiB a GPU (plan)", *(f"tokens/s of {n} (plan)" for n in STREAMS), "by vLLM alone"]
    heads += ["of each GPU, by the fewest", "first token, ms", "a token, ms"]
    lines: list[Sequence[str]] = [heads, ["---", *["--:"] * (len(heads) - 1)], *rows(found)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _file(case: Case, folder: Path) -> Path:
    return folder / "cases" / f"{case.name}.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.scaling", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/bench-scaling"), help="what was measured; checkpoints, too")
    parser.add_argument("--gpus", type=int, help="of this machine: cases of as many and, where time is left, of fewer")
    parser.add_argument("--seconds", type=float, default=560.0, help="that may pass")
    parser.add_argument("--tables", action="store_true", help="print what is there, measure nothing")
    options = parser.parse_args()
    folder, ends = options.folder.absolute(), time.monotonic() + options.seconds
    (folder / "cases").mkdir(parents=True, exist_ok=True)
    waiting = [case for case in CASES if case.gpus <= (options.gpus or 0) and not _file(case, folder).exists()]
    for case in () if options.tables else sorted(waiting, key=lambda case: -case.gpus):
        needs = _CASE_S + (0 if (folder / case.shape / "model.safetensors").exists() else _CHECKPOINT_S)
        if time.monotonic() + needs > ends:
            continue
        failed = _file(case, folder).with_suffix(".failed")
        failed.unlink(missing_ok=True)
        try:
            measure(case, folder)
        except RuntimeError as error:
            failed.write_text(str(error), "utf-8")
        print(f"{case.name}: {failed.read_text('utf-8')[:500] if failed.exists() else 'measured'}", file=sys.stderr, flush=True)
    print(table({path.stem: json.loads(path.read_text("utf-8")) for path in (folder / "cases").glob("*.json")}))


if __name__ == "__main__":
    main()
