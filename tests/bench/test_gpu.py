"""What the bench of engines for CUDA counts, without a GPU. Run: pytest tests/bench/test_gpu.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bench.gpu import __main__ as bench
from bench.gpu import loop as bench_loop
from rich.console import Console

from fakes.cuda_engines import HostPaged, cuda_manifest
from triune_runtime.manifest import EngineManifest, Limits


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bench_loop.Loop:
    cuda_manifest(40, Limits(max_sequences=4, max_length=64, prefill_chunk=16), 4, stops=(0,)).save(tmp_path)

    def host(manifest: EngineManifest, folder: Path) -> Any:
        return HostPaged(manifest).runner

    monkeypatch.setattr(bench_loop, "make_runner", host)
    return bench_loop.Loop(tmp_path)


def test_a_batch_has_all_tokens_of_all_requests_and_a_first_one_of_each(loop: bench_loop.Loop) -> None:
    run = loop.batch(3, 20, 8)
    assert run.tokens == 3 * 8 and len(run.first_s) == 3
    assert 0 < len(run.step_s) <= 8 and sum(run.step_s) <= run.seconds
    loop.close()


def test_requests_are_sent_at_their_times(loop: bench_loop.Loop) -> None:
    run = loop.serve([(0.05, loop.request(5, 3)), (0.0, loop.request(5, 3))])
    assert run.seconds >= 0.05 and run.tokens == 6 and max(run.first_s) < run.seconds


def test_the_table_has_a_column_for_each_and_a_row_for_each_figure() -> None:
    one = {"tokens_per_s": [1.0, 5.0, 3.0], "decode_tokens_per_s": None, "first_token_ms": 7.25}
    figures = {"start_s": {"load": 1.0, "warm up": 2.5}, "decode": {8: one}, "prefill_2048_ms": [10.0]}
    console = Console(record=True, width=100)
    console.print(bench.table({"triune": figures | {"mixed": {"tokens_per_s": 99.0}}, "vllm": figures}))
    said = console.export_text()
    assert "triune" in said and "vllm" in said
    for row in ("8 sequences, tokens/s", "3.0", "prompt of 2,048, ms", "99.0", "start, s", "3.5"):
        assert row in said
