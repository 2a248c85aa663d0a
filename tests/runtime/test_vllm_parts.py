"""What surrounds vLLM's process: messages, causes, leftovers, where it is. Run: pytest tests/runtime/test_vllm_parts.py"""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fakes.vllm_engines import use_double, vllm_engine
from triune_runtime.errors import ManifestError
from triune_runtime.machine import Gpu, Machine
from triune_runtime.manifest import EngineManifest
from triune_runtime.targets.vllm import finding
from triune_runtime.targets.vllm.causes import cause_in, remedy_of
from triune_runtime.targets.vllm.hosting import environment
from triune_runtime.targets.vllm.leftovers import sweep
from triune_runtime.targets.vllm.plan import VllmPlan, engine_arguments
from triune_runtime.targets.vllm.progress import Progress
from triune_runtime.targets.vllm.protocol import Add, First, Load, Piece, Ready, Refused, Start, Step, read, written
from triune_runtime.targets.vllm.telling import piece_of

MESSAGES = [
    Start(arguments={"model": "/m", "dtype": "float32"}),
    Add(key=1, prompt=(1, 2, 3), params={"logit_bias": {"5": -1.0}}, extra={"guide": ["regex", "é"]}, cache_salt="s"),
    Ready(version="0.32.0", vocab_size=10, kv_blocks=3, block_tokens=16),
    Refused(key=3, why="no"),
    Step(steps=7, load=Load(2, 1, 0.5)),
    Step(steps=8, load=Load(), pieces=(
        Piece(1, (4, 5), None, ((-0.5, ((4, -0.5), (6, -1.5))), (-2.0, ()))),
        Piece(2, (), "stop", first=First(0.25, 16, ((7, 3, (-1.0, ((8, -0.1),))),))),
    )),
]  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_arrives_as_it_was_sent(message: Step) -> None:
    line = written(message)
    assert line.count(b"\n") == 1 and read(line) == message


@pytest.mark.parametrize("line", [b"", b"{}", b"[1]", b'["Abort"]', b'["What", 1]', b"\xff"])
def test_what_is_no_message_is_seen(line: bytes) -> None:
    with pytest.raises(ValueError, match="no message of vLLM's process"):
        read(line)


def test_the_best_tokens_come_in_order_and_the_chosen_one_beside_them() -> None:
    row = {
        9: SimpleNamespace(logprob=-3.0, rank=5),
        2: SimpleNamespace(logprob=-0.2, rank=1),
        4: SimpleNamespace(logprob=-1.0, rank=2),
    }
    made = SimpleNamespace(token_ids=[9], finish_reason=None, logprobs=[row])
    times = SimpleNamespace(queued_ts=2.0, scheduled_ts=2.5)
    output = SimpleNamespace(outputs=[made], metrics=times, num_cached_tokens=None, prompt_logprobs=None)
    piece = piece_of(1, output, 2, None, first=True)
    assert piece == Piece(1, (9,), None, ((-3.0, ((2, -0.2), (4, -1.0))),), First(0.5, 0))
    assert piece_of(1, output, 0, None, first=False).logprobs == ((-3.0, ()),)


LOG = """
(EngineCore pid=7) ERROR 11-29 19:00:00 [core.py:1200] EngineCore failed to start.
(EngineCore pid=7) ERROR 11-29 19:00:00 [core.py:1200] Traceback (most recent call last):
(EngineCore pid=7) ERROR 11-29 19:00:00 [core.py:1200] ValueError: To serve at least one request with max seq len (2048), 1 GiB
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}
"""


def test_the_first_cause_in_a_log_is_told() -> None:
    cause = cause_in(LOG.splitlines())
    assert cause == "ValueError: To serve at least one request with max seq len (2048), 1 GiB"
    assert cause_in(["all is well", "RuntimeError: Engine core initialization failed. See root cause above."]) == ""
    assert cause_in(["torch.OutOfMemoryError: CUDA out of memory."]) == "OutOfMemoryError: CUDA out of memory."
    assert "TENSOR_PARALLEL" in remedy_of("OutOfMemoryError: CUDA out of memory.")
    assert "log" in remedy_of("SomethingError: new")


def test_memory_that_nobody_has_is_swept_and_no_other(tmp_path: Path) -> None:
    for name in ("psm_left", "psm_mapped", "vllm_dist_open", "vllm_dist_left", "other"):
        (tmp_path / name).write_bytes(b"x" * 4096)
    with (tmp_path / "psm_mapped").open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 4096)
    with (tmp_path / "vllm_dist_open").open("rb"):
        assert sweep(tmp_path, just_now_s=-1.0) == 2 * 4096
    mapped.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "psm_mapped", "vllm_dist_open"]
    assert sweep(tmp_path) == 0, "what was made just now may be on its way to who maps it"


@pytest.mark.parametrize(("command", "freed"), [(b"/sbin/init", 4096), (b"/v/bin/python\0-m\0x", 0), (b"VLLM::Worker_TP0", 0)])
def test_a_process_that_cannot_be_looked_at_keeps_memory_only_if_it_may_have_made_it(
    command: bytes, freed: int, tmp_path: Path
) -> None:
    (tmp_path / "psm_left").write_bytes(b"x" * 4096)
    process = tmp_path / "proc/1"
    (process / "maps").mkdir(parents=True)  # no file: not to be read
    (process / "cmdline").write_bytes(command)
    assert sweep(tmp_path, tmp_path / "proc", just_now_s=-1.0) == freed


def test_standing_still_counts_only_while_there_is_something_to_do() -> None:
    now = [0.0]
    progress = Progress(stall_s=3.0, clock=lambda: now[0])

    def look(*, busy: bool = True, passed: float = 1.0) -> float | None:
        now[0] += passed
        return progress.stood_still(busy=busy)

    assert [look(busy=False) for _ in range(9)] == [None] * 9
    assert [look() for _ in range(3)] == [None] * 3
    progress.made(1)
    assert [look() for _ in range(4)] == [None, None, None, 4.0]
    progress.made(2)
    assert look(passed=1000.0) is None, "a machine that slept"


def test_the_python_that_has_vllm_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_double(monkeypatch)
    assert finding.find_python() == Path(sys.executable)
    assert finding.version_of(Path(sys.executable)) == "0.32.0"
    monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises(ManifestError, match="has no vLLM"):
        finding.version_of(Path(sys.executable))
    monkeypatch.setenv(finding.VARIABLE, str(tmp_path / "none"))
    with pytest.raises(ManifestError, match="which is no program"):
        finding.find_python()
    monkeypatch.delenv(finding.VARIABLE)
    monkeypatch.setattr(finding, "_OWN", "nowhere/python")
    with pytest.raises(ManifestError, match="need vLLM") as refused:
        finding.find_python()
    assert "make up TARGET=vllm" in (refused.value.hint or "")


def test_the_engine_is_told_what_the_manifest_says(tmp_path: Path) -> None:
    manifest = vllm_engine(tmp_path)
    plan = {"checkpoint": "/models/x", "dtype": "bfloat16", "kv_bytes": 5, "tensor_parallel": 2, "quantization": "fp8"}
    told = engine_arguments(EngineManifest(**(vars(manifest) | {"plan": plan})), tmp_path, prefix_caching=False)
    assert told["model"] == "/models/x" and told["tensor_parallel_size"] == 2 and told["quantization"] == "fp8"
    assert told["kv_cache_memory_bytes"] == 5 and told["enable_prefix_caching"] is False and told["skip_tokenizer_init"]
    assert told["max_model_len"] == 128 and told["max_num_seqs"] == 4
    with pytest.raises(ManifestError, match="does not fit this runtime"):
        VllmPlan.of(EngineManifest(**(vars(manifest) | {"plan": {"dtype": "float32", "wheels": 4}})))


def test_its_process_has_the_cores_and_none_of_the_servers_libraries(tmp_path: Path) -> None:
    around = {
        "LD_LIBRARY_PATH": "/x/tritonserver/lib:/usr/local/cuda/lib64",
        "OMP_NUM_THREADS": "1",
        "PYTHONHOME": "/y",
        "HOME": "/h",
    }
    made = environment(VllmPlan(checkpoint="", dtype="float32"), tmp_path, Path("/v/python"), around, Machine(gpus=()))
    assert made["LD_LIBRARY_PATH"] == "/usr/local/cuda/lib64" and "PYTHONHOME" not in made and made["HOME"] == "/h"
    assert made["OMP_NUM_THREADS"] == str(len(os.sched_getaffinity(0)))
    assert Path(made["PYTHONPATH"]).name == "runtime"


def test_its_workers_have_one_thread_each_where_gpus_compute(tmp_path: Path) -> None:
    plan, machine = VllmPlan(checkpoint="", dtype="bfloat16"), Machine(gpus=(Gpu("H200", "9.0"),))
    assert environment(plan, tmp_path, Path("/v/python"), {}, machine)["OMP_NUM_THREADS"] == "1"
    said = {"TRIUNE_VLLM_THREADS": "6"}
    assert environment(plan, tmp_path, Path("/v/python"), said, machine)["OMP_NUM_THREADS"] == "6"
