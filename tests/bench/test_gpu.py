"""What the bench of engines for CUDA counts, without a GPU. Run: pytest tests/bench/test_gpu.py"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from bench.gpu import __main__ as bench
from bench.gpu import loop as bench_loop
from bench.gpu.host import WAIT, Parts, Profiled, free_runner
from bench.gpu.plot import speeds
from bench.gpu.prefix import profiled, stages
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


def test_a_figure_that_one_lacks_is_a_dash_in_its_row() -> None:
    one = {"tokens_per_s": [7.0], "decode_tokens_per_s": None, "first_token_ms": 1.0}
    with_one, with_two = ({"start_s": {"load": 1.0}, "decode": {count: one}} for count in (1, 2))
    console = Console(record=True, width=100)
    console.print(bench.table({"triune": with_one, "vllm": with_two}))
    row = next(line for line in console.export_text().splitlines() if "2 sequences, tokens/s" in line)
    assert [cell.strip() for cell in row.strip("│ ").split("│")][1:] == ["-", "7.0"]


def test_a_stage_that_fails_is_told_and_the_next_one_runs() -> None:
    stages = bench.Stages(10)
    assert stages.run("first", lambda: bench.run([sys.executable, "-c", "raise SystemExit(3)"], 10)) is None
    assert stages.run("second", lambda: {"decode": 1}) == {"decode": 1}
    assert list(stages.failed) == ["first"] and "3" in stages.failed["first"]
    assert list(stages.took_s) == ["first", "second"]


def test_a_stage_that_takes_too_long_ends_with_all_that_it_started(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    code = (
        "import pathlib, subprocess; sleeping = subprocess.Popen(['sleep', '60']); "
        f"pathlib.Path({str(told)!r}).write_text(str(sleeping.pid)); sleeping.wait()"
    )
    stages = bench.Stages(2)
    assert stages.run("slow", lambda: bench.run([sys.executable, "-c", code], 2.0)) is None
    assert "timed out" in stages.failed["slow"]
    _, alive = psutil.wait_procs([psutil.Process(int(told.read_text()))] if psutil.pid_exists(int(told.read_text())) else [], 5)
    assert not alive


def test_the_plot_has_a_line_for_each_and_medians() -> None:
    figures = {"decode": {"1": {"tokens_per_s": [1.0, 9.0, 3.0]}, "64": {"tokens_per_s": [50.0]}}}
    drawn = speeds("a shape <b>", {"triune": figures, "vllm": figures})
    assert "triune" in drawn and "vllm" in drawn and "a shape &lt;b&gt;" in drawn
    assert drawn.count("<svg") == 1 and "http" not in drawn


def test_each_part_of_the_hosts_time_counts_without_what_is_within_it() -> None:
    ticks = iter([0.0, 1.0, 3.0, 10.0])  # outer begins, inner begins, inner ends, outer ends
    parts = Parts(lambda: next(ticks))
    inner = parts.timed(lambda: None, "inner")
    parts.timed(inner, "outer")()
    assert parts.seconds == {"inner": 2.0, "outer": 8.0}
    parts.close()


def test_the_hosts_part_of_steps_is_told_without_a_gpu(tmp_path: Path) -> None:
    cuda_manifest(40, Limits(max_sequences=4, max_length=1024, prefill_chunk=512), 64).save(tmp_path)
    profiled = Profiled(tmp_path, free_runner)
    found = profiled.decode(3, 6)
    profiled.close()
    assert {"plan", "commit", "queue", "pieces of text"} <= found["parts_us"].keys()
    assert sum(us for name, us in found["parts_us"].items() if name != WAIT) > 0 and found["waited_us"] < found["step_us"]


def test_of_requests_that_begin_alike_every_part_until_their_first_tokens_is_told(tmp_path: Path) -> None:
    made = profiled(None, tmp_path, 8)
    found = stages(made, 8, 300)
    assert [{"check tokens", "queue up"} <= stage.parts.keys() for stage in found] == [True, False, False, False]
    assert {"look prompts up", "copy blocks", "launch the graph"} <= found[2].parts.keys() and "tokens to answers" in found[
        3
    ].parts
    assert all(0 < sum(stage.parts.values()) <= stage.ms for stage in found)
    assert stages(made, 2, 10)[0].ms > 0 and not made.loop.steps.has_work
    made.close()
