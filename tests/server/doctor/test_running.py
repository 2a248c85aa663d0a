"""What is seen of a server that runs, and what it means. Run: pytest tests/server/doctor/test_running.py"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fakes.machine_files import machine
from fakes.nvml import gpu
from fakes.observed import CPU, MS, WELL, events, observed, running
from fakes.repository import fake_repository, tensorrt_repository
from triune_runtime.manifest import EngineManifest
from triune_server.background import Health
from triune_server.doctor import context as context_module
from triune_server.doctor import recording, server
from triune_server.doctor.finding import Verdict
from triune_server.doctor.observing import Observed
from triune_server.doctor.steps import LATE, REFUSED, slow
from triune_server.doctor.watching import Sample
from triune_server.view import ENGINE_FOLDER, View


def test_a_server_under_load_that_is_well_is_good_in_all() -> None:
    found = list(slow(observed(events(parts=WELL), busy=0.9), cores=4))
    assert {one.verdict for one in found} == {Verdict.GOOD}
    assert found[0].found.startswith(
        "100 steps a second, 9.5 ms each: launch 84%, sample 11%, rest 4%, plan 1%; 4.0 sequences together"
    )


@pytest.mark.parametrize(
    ("seen", "subject", "said", "remedy"),
    [
        (observed(events(parts={"launch": 4.0, "sample": 5.0})), "steps of m", "on the CPU holds it up", "log probabilities"),
        (observed(events(parts={"launch": 4.0, "text": 3.0, "rest": 2.0})), "steps of m", "takes 56%", "faster core"),
        (observed(events(parts=WELL), busy=0.2), "GPU of m", "computes 20% of the time, steps take 95%", "`triune profile`"),
        (observed(events(parts=WELL, decoding=16, waiting=9)), "queue of m", "9.0 requests waited", "MAX_SEQUENCES"),
        (observed(events(parts=WELL, decoding=3, waiting=9)), "queue of m", "3.0 of 16 places", "KV memory is full"),
        (observed(events(parts=WELL, waiting=2, decoding=16, kv=16)), "KV cache of m", "100% in use at most", "eight bits"),
        (observed(events(parts=WELL), counts={REFUSED: 5.0}), "refused requests", "5 in 1.0 s", "replica"),
        (observed(events(parts=WELL), counts={LATE: 2.0}), "missed deadlines", "2 in 1.0 s", "longer"),
        (observed(events(parts=WELL), others=3.0), "processor", "3.0 by others", "end other programs"),
        (observed(events(parts=WELL), cores={"gateway": 0.97}), "processor", "gateway is at its limit", "chunks"),
        (observed(events(parts=WELL), busy=0.9, slowed=0x40), "clocks of GPU 0", "held back by heat, by the hardware", "cool"),
    ],
)  # fmt: skip
def test_what_makes_it_slow_is_found_with_its_remedy(seen: Observed, subject: str, said: str, remedy: str) -> None:
    found = [one for one in slow(seen, cores=4) if one.verdict is Verdict.POOR and one.subject == subject]
    assert len(found) == 1 and said in found[0].found and remedy in found[0].remedy


def test_an_engines_gpu_is_that_which_its_process_uses_or_that_which_is_named() -> None:
    def share(*own: bool, named: int = 0) -> str:
        seen = observed(events(parts=WELL))
        gpus = tuple(gpu(n, busy=n / 2, processes=frozenset({4242} if one else ())) for n, one in enumerate(own))
        seen = dataclasses.replace(seen, samples=(Sample(100 * MS, CPU, 0.1, gpus),))
        return next(one.found for one in slow(seen, cores=4, gpu=named) if one.subject == "GPU of m")

    assert share(False, True).startswith("computes 50%") and share(True, False).startswith("computes 0%")
    assert share(False, False, False, named=2).startswith("computes 100%")


def test_an_engine_that_records_nothing_is_said() -> None:
    (found,) = [one for one in slow(dataclasses.replace(observed(events(parts=WELL)), silent=1), cores=4) if one.remedy]
    assert found.verdict is Verdict.UNKNOWN and "1 of 2 engines" in found.found and "make logs" in found.remedy


def test_of_a_server_that_nobody_asks_nothing_is_said_of_steps() -> None:
    found = list(slow(observed(events(steps=2, parts=WELL)), cores=4))
    assert found[0].verdict is Verdict.UNKNOWN and "idle" in found[0].found and "make load" in found[0].remedy
    assert not [one for one in found if one.subject.endswith(" of m")]


MAPS = "7f00-7f01 r-xp 0 0:0 1 /x/{}\n"


@pytest.mark.parametrize(
    ("target", "maps", "holds", "gpus", "verdict", "said"),
    [
        ("cpu", MAPS.format("onnxruntime_pybind11_state.so"), None, 0, Verdict.GOOD, "the CPU, with ONNX Runtime"),
        ("cpu", MAPS.format("onnxruntime_pybind11_state.so"), None, 2, Verdict.POOR, "beside 2 GPUs that are not used"),
        ("cuda", MAPS.format("libonnxruntime_providers_cuda.so"), True, 1, Verdict.GOOD, "cuda is used"),
        ("cuda", MAPS.format("libonnxruntime_providers_cuda.so"), None, 1, Verdict.GOOD, "cuda is used"),
        ("cuda", MAPS.format("libonnxruntime_providers_cuda.so"), False, 1, Verdict.BAD, "no use of a GPU"),
        ("cuda", MAPS.format("onnxruntime_pybind11_state.so"), True, 1, Verdict.BAD, "it is not used"),
        ("tensorrt", MAPS.format("libnvinfer.so.10"), True, 1, Verdict.GOOD, "tensorrt is used: libnvinfer"),
        (
            "tensorrt",
            MAPS.format("onnxruntime_pybind11_state.so"),
            True,
            1,
            Verdict.BAD,
            "none of libnvinfer or libtensorrt_rtx",
        ),
        ("cuda", "", None, 1, Verdict.UNKNOWN, "not to be seen"),
        ("vllm", MAPS.format("libtorch_cpu.so"), None, 0, Verdict.GOOD, "vllm is used: libtorch"),
        ("vllm", MAPS.format("libtorch_cuda.so"), False, 2, Verdict.BAD, "no use of a GPU"),
        ("vllm", MAPS.format("onnxruntime_pybind11_state.so"), None, 0, Verdict.BAD, "none of libtorch"),
    ],
)
def test_what_an_engine_really_runs_on_is_told(
    target: str, maps: str, holds: bool | None, gpus: int, verdict: Verdict, said: str
) -> None:
    found = server.device("generate", target, maps, holds, gpus=gpus)
    assert found.verdict is verdict and said in found.found and bool(found.remedy) == (verdict is not Verdict.GOOD)


def process(pid: int, *started: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, children=lambda recursive: list(started))


def test_each_engines_process_is_looked_at_by_what_it_was_built_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = {
        "proc/7/maps": MAPS.format("onnxruntime_pybind11_state.so"), "proc/8/maps": MAPS.format("libnvinfer.so.10"),
        "proc/9/maps": MAPS.format("libpython.so"), "proc/10/maps": MAPS.format("libtorch_cpu.so"),
    }  # fmt: skip
    context = machine(tmp_path, dict(maps))
    repositories = {name: fake_repository(tmp_path / name) for name in ("a", "c")} | {"b": tensorrt_repository(tmp_path / "b")}
    for name, target in (("a", "cpu"), ("c", "vllm")):
        engine = repositories[name] / ENGINE_FOLDER
        dataclasses.replace(EngineManifest.load(engine), target=target).save(engine)
    View(context.run_folder).begin(repositories)
    context.__dict__["running"] = running(tmp_path)
    processes = {
        "generate": process(7),
        "b__generate": process(8),
        "c__generate": process(9, process(10)),
        "gone__generate": process(11),
    }
    monkeypatch.setattr(server, "engines_of", lambda pid: processes)
    found = {one.subject: one.found for one in server.devices(context)}
    assert found["device of generate"] == "the CPU, with ONNX Runtime"
    assert found["device of b__generate"] == "tensorrt is used: libnvinfer"
    assert found["device of c__generate"] == "vllm is used: libtorch", "which a process has that the engine's has started"
    shutil.rmtree(repositories["b"])
    assert [one.subject for one in server.devices(context)][:1] == ["device of generate"]


def test_that_nobody_uses_a_gpu_is_believed_only_where_its_memory_is_free(tmp_path: Path) -> None:
    def holds(*of_gpus: frozenset[int] | None, free: int = 140_000_000_000) -> bool | None:
        gpus = [gpu(n, processes=one, free_bytes=free) for n, one in enumerate(of_gpus)]
        return server.gpu_holds(machine(tmp_path, gpus=gpus), (4242, 4243))

    assert holds(frozenset({4242}), frozenset()) is True is holds(frozenset(), frozenset({4243, 7}))
    assert holds(frozenset()) is holds(frozenset({7})) is holds(None) is holds() is None  # as in a container
    assert holds(frozenset(), free=149_900_000_000) is False


@pytest.mark.parametrize(
    ("more", "ready", "verdict", "said"),
    [
        ({}, True, Verdict.GOOD, "ready"),
        ({}, False, Verdict.BAD, "not ready"),
        ({"restarts": 3, "reason": "it died"}, True, Verdict.POOR, "died 3 times: it died"),
        ({"restarts": 3, "reason": "it died", "waiting": True}, False, Verdict.BAD, "waits before it starts again: it died"),
    ],
)
def test_whether_a_server_is_well_is_told(
    more: dict[str, Any], ready: bool, verdict: Verdict, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context_module, "look", lambda one: Health(ready, 10**9, {}))
    context = machine(tmp_path)
    context.__dict__["running"] = running(tmp_path, **more)
    (found,) = server.runs(context)
    assert found.verdict is verdict and said in found.found
    context.run_folder.mkdir()
    (context.run_folder / "stalled").write_text("the Python process of generate")
    assert [one for one in server.runs(context) if one.verdict is Verdict.BAD and "process of generate" in one.found]


def test_no_server_is_no_fault(tmp_path: Path) -> None:
    found = [one for check in server.CHECKS for one in check(machine(tmp_path))]
    assert [one.verdict for one in found] == [Verdict.UNKNOWN] and "make up" in found[0].remedy


def test_a_server_in_containers_is_looked_at_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "find_stack", lambda folder: object())
    (found,) = server.runs(machine(tmp_path))
    assert found.verdict is Verdict.UNKNOWN and "docker exec" in found.remedy


def test_a_server_that_records_nothing_is_not_known_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = machine(tmp_path, seconds=0.1)
    context.run_folder.mkdir()
    context.__dict__["running"] = running(tmp_path)
    monkeypatch.setattr(recording, "_PATIENCE_S", 0.1)
    (found,) = server.slowness(context)
    assert found.verdict is Verdict.UNKNOWN and "no engine answers" in found.found and "SWITCH=1" in found.remedy
    assert not list(context.run_folder.iterdir())
