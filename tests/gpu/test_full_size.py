"""Engines of full width beside PyTorch in float32: each architecture in every precision, and a whole model of 28 layers.

Run: pytest -m gpu -s tests/gpu/test_full_size.py, some 100 s. Each engine is tried in a process of its own, six at a time;
what is measured is printed, and no failure keeps the others from being tried. It needs the builder's packages, PyTorch, and
40 GB of GPU memory; a single one: python -m support.full_size_trial.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the reference is computed with torch")

from triune_runtime.machine import this_machine

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parents[2]
TOGETHER, LIMIT_S = 6, 120
PRECISIONS = ("bf16", "fp16", "int4", "bf16-fp8kv", "int4-fp8kv")
CASES = [("qwen2-28", "bf16"), *((f"{kind}-4", precision) for kind in ("qwen2", "llama", "qwen3") for precision in PRECISIONS)]
Running = dict[tuple[str, str], "Future[subprocess.CompletedProcess[str]]"]


def tried(shape: str, precision: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(
        [os.environ.get("PYTHONPATH", ""), *(str(ROOT / part) for part in ("builder", "runtime", "tests", "."))]
    )
    command = [sys.executable, "-m", "support.full_size_trial", shape, precision, str(folder)]
    try:
        return subprocess.run(
            command, env=os.environ | {"PYTHONPATH": path}, cwd=ROOT, text=True, check=False, timeout=LIMIT_S,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        said = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else str(error.stdout)
        return subprocess.CompletedProcess(command, 124, f"{said}\nended after {LIMIT_S} s")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    machine = this_machine()
    if not machine.gpus:
        pytest.skip(f"no supported GPU: {machine.no_gpu}")
    folder = tmp_path_factory.mktemp("engines")
    with ThreadPoolExecutor(TOGETHER) as pool:
        yield {case: pool.submit(tried, *case, folder) for case in CASES}


@pytest.mark.parametrize(("shape", "precision"), CASES)
def test_every_step_s_logits_equal_float32_torch(shape: str, precision: str, running: Running) -> None:
    done = running[shape, precision].result()
    lines = done.stdout.splitlines()
    print("", *(line for line in lines if line.startswith(shape)), sep="\n")
    assert done.returncode == 0, "\n".join(lines[-40:])
