"""What is seen of a server that runs, and what it means. Run: pytest tests/server/doctor/test_running.py"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import shutil
import threading
import xml.etree.ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fakes.machine_files import machine
from fakes.nvml import gpu
from fakes.repository import fake_repository, tensorrt_repository
from triune_runtime.generation import phases
from triune_runtime.manifest import EngineManifest
from triune_runtime.metrics import FAMILIES
from triune_server.background import Health
from triune_server.doctor import observing, recording, server, watching, where
from triune_server.doctor.finding import Verdict
from triune_server.doctor.observing import Observed
from triune_server.doctor.plot import picture
from triune_server.doctor.recording import Record, Timed, record
from triune_server.doctor.steps import slow
from triune_server.doctor.trace import chrome
from triune_server.doctor.watching import Sample, Watch
from triune_server.doctor.where import over_time
from triune_server.errors import ServerError
from triune_server.options import ServerOptions
from triune_server.state import RunningServer
from triune_server.view import ENGINE_FOLDER, View

MS = 1_000_000
REFUSED, LATE = "triune_requests_refused_total:overloaded", "triune_requests_aborted_total:deadline"
CPU = {"generate": 1.0, "front": 0.1}


def events(
    steps: int = 100, *, every_ms: int = 10, parts: Mapping[str, float], decoding: int = 4, waiting: int = 0, kv: int = 10
) -> list[Timed]:
    """Steps one after the other; `parts` are milliseconds of each."""
    made = list[Timed]()
    for step in range(steps):
        began = at = step * every_ms * MS
        for name, ms in parts.items():
            if name in where.PHASES and name != "rest":
                made.append(Timed(name, at, int(ms * MS), {}))
            at += int(ms * MS)
        made.append(Timed("step", began, at - began, {}))
    counts = {"decoding": decoding, "prefilling": 0, "waiting": waiting, "kv_used": kv, "kv_blocks": 16}
    made += [Timed("counts", step * every_ms * MS, 0, counts) for step in range(0, steps, 5)]
    return [*made, Timed("request", 0, steps * every_ms * MS, {"key": 7})]


def observed(
    made: Sequence[Timed],
    *,
    cores: Mapping[str, float] = CPU,
    others: float = 0.1,
    counts: Mapping[str, float] | None = None,
    **of_gpu: Any,
) -> Observed:
    one = Record("m", 4242, 16, 0, 0, 1000 * MS, tuple(made))
    gpus = (gpu(**of_gpu),) if of_gpu else ()
    return Observed(
        0, 1.0, (one,), (Sample(100 * MS, cores, others, gpus), Sample(400 * MS, cores, others, gpus)), counts or {}
    )


WELL: Mapping[str, float] = {"plan": 0.1, "launch": 8.0, "sample": 1.0, "rest": 0.4}


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
    ],
)
def test_what_an_engine_really_runs_on_is_told(
    target: str, maps: str, holds: bool | None, gpus: int, verdict: Verdict, said: str
) -> None:
    found = server.device("generate", target, maps, holds, gpus=gpus)
    assert found.verdict is verdict and said in found.found and bool(found.remedy) == (verdict is not Verdict.GOOD)


def test_each_engines_process_is_looked_at_by_what_it_was_built_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = {"proc/7/maps": MAPS.format("onnxruntime_pybind11_state.so"), "proc/8/maps": MAPS.format("libnvinfer.so.10")}
    context = machine(tmp_path, maps)
    repositories = {"a": fake_repository(tmp_path / "a"), "b": tensorrt_repository(tmp_path / "b")}
    engine = repositories["a"] / ENGINE_FOLDER
    dataclasses.replace(EngineManifest.load(engine), target="cpu").save(engine)
    View(context.run_folder).begin(repositories)
    context.__dict__["running"] = running(tmp_path)
    processes = {
        "generate": SimpleNamespace(pid=7),
        "b__generate": SimpleNamespace(pid=8),
        "gone__generate": SimpleNamespace(pid=9),
    }
    monkeypatch.setattr(server, "engines_of", lambda pid: processes)
    found = {one.subject: one.found for one in server.devices(context)}
    assert found["device of generate"] == "the CPU, with ONNX Runtime"
    assert found["device of b__generate"] == "tensorrt is used: libnvinfer"
    shutil.rmtree(repositories["b"])
    assert [one.subject for one in server.devices(context)][:1] == ["device of generate"]


def test_that_nobody_uses_a_gpu_is_believed_only_where_its_memory_is_free(tmp_path: Path) -> None:
    def holds(*of_gpus: frozenset[int] | None, free: int = 140_000_000_000) -> bool | None:
        gpus = [gpu(n, processes=one, free_bytes=free) for n, one in enumerate(of_gpus)]
        return server.gpu_holds(machine(tmp_path, gpus=gpus), 4242)

    assert holds(frozenset({4242}), frozenset()) is True
    assert holds(frozenset()) is holds(frozenset({7})) is holds(None) is holds() is None  # as in a container
    assert holds(frozenset(), free=149_900_000_000) is False


def running(tmp_path: Path, **more: Any) -> RunningServer:
    return RunningServer(pid=os.getpid(), created=0.0, options=ServerOptions(repository=tmp_path), **more)


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
    monkeypatch.setattr(server, "look", lambda one: Health(ready, 10**9, {}))
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


def test_parts_are_the_runtimes_own() -> None:
    known = {getattr(phases, name) for name in ("PLAN", "LAUNCH", "WAIT", "SAMPLE", "COMMIT", "TEXT", "DRAFT")}
    assert known | {"rest"} == where.PHASES.keys()
    assert (phases.STEP, phases.REQUEST, phases.COUNTS) == (where.STEP, where.REQUEST, where.COUNTS)
    assert phases.Timed._fields == Timed._fields


def test_the_parts_of_a_step_are_the_whole_of_it() -> None:
    found = where.where(observed(events(parts=WELL)).records[0])
    assert found.steps == 100 and found.busy_s == pytest.approx(0.95) and sum(found.parts.values()) == pytest.approx(0.95)
    assert found.idle == pytest.approx(0.05) and found.share("launch", "rest") == pytest.approx(8.4 / 9.5)
    rows = over_time(events(parts=WELL), 0, 1.0, 7)
    assert sum(map(sum, rows.values())) == pytest.approx(0.95) and sum(rows["launch"]) == pytest.approx(0.8)
    assert where.where(Record("m", 1, 16, 0, 0, 0, ())).idle == 1.0


def test_the_trace_is_chromes_and_the_picture_is_svg() -> None:
    seen = observed(events(parts=WELL), busy=0.9)
    trace = json.loads(json.dumps(chrome(seen.records, seen.samples)))["traceEvents"]
    assert {one["ph"] for one in trace} == {"X", "C", "M", "b", "e"}
    steps = [one for one in trace if one["name"] == "step"]
    assert len(steps) == 100 and steps[1]["ts"] == 10_000 and steps[1]["dur"] == 9_500
    assert all({"ph", "pid", "name"} <= one.keys() and (one["ph"] == "M" or "ts" in one) for one in trace)
    assert {"busy cores", "GPU 0", "sequences", "KV blocks"} <= {one["name"] for one in trace if one["ph"] == "C"}
    begins, ends = ([one for one in trace if one["ph"] == ph] for ph in "be")
    assert (
        [(one["id2"], one["cat"]) for one in begins]
        == [(one["id2"], one["cat"]) for one in ends]
        == [({"local": "0x7"}, "request")]
    )
    full = chrome([dataclasses.replace(seen.records[0], dropped=5)], ())
    assert full["otherData"] == {"dropped": {"m": 5}}
    drawn = picture(seen.records, seen.samples, seen.began, seen.seconds)
    texts = {one.text for one in xml.etree.ElementTree.fromstring(drawn).iter() if one.text}
    assert {
        "m: share of time in parts of steps",
        "m: sequences",
        "busy cores by process",
        "share of time that GPUs compute",
    } <= texts


def test_an_engine_that_answers_is_read_and_what_it_wrote_is_removed(tmp_path: Path) -> None:
    def engine() -> None:
        while not (ask := tmp_path / "profile.ask").exists() or not ask.read_text():
            pass
        question = json.loads(ask.read_text())
        assert question["seconds"] == 0.1
        beside = tmp_path / f"profile-{question['name']}-7.new"
        lines = [
            {"model": "m", "pid": 7, "slots": 16, "dropped": 0, "began": 3, "ended": 9},
            [["step", 5, 2, {}], ["plan", 4, 1, {}]],
            [],
        ]
        beside.write_text("".join(json.dumps(line) + "\n" for line in lines))
        beside.rename(beside.with_suffix(""))

    thread = threading.Thread(target=engine)
    thread.start()
    assert record(tmp_path, 0.1) == [Record("m", 7, 16, 0, 3, 9, (Timed("plan", 4, 1, {}), Timed("step", 5, 2, {})))]
    thread.join()
    assert not list(tmp_path.iterdir())


def test_two_engines_of_one_model_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (Record("m", pid, 16, 0, 0, 9, ()) for pid in (7, 8))
    assert [record.model for record in recording.named_apart([one, two])] == ["m (pid 7)", "m (pid 8)"]
    assert recording.named_apart([one, dataclasses.replace(two, model="n")])[0] is one


def test_what_counters_have_grown_by_is_seen_and_which_engines_are_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f'{REFUSED.partition(":")[0]}{{model="{model}",reason="overloaded"}} {n}\n' for n in (2, 7) for model in "m"]
    monkeypatch.setattr(observing, "ask", lambda url, timeout_s: SimpleNamespace(text=texts.pop(0)))
    monkeypatch.setattr(observing, "record", lambda folder, seconds: observed(events(parts=WELL)).records)
    monkeypatch.setattr(View, "served", lambda view: {"m": None, "n": None})
    seen = observing.observe(running(tmp_path), tmp_path, 0.1)
    assert seen.counts[REFUSED] == 5 and seen.silent == 1 and seen.seconds == 1.0

    def refuse(url: str, timeout_s: float) -> None:
        raise OSError("nobody")

    monkeypatch.setattr(observing, "ask", refuse)
    assert observing.counters(ServerOptions(repository=tmp_path)) == {}


def test_counters_are_those_of_the_runtime() -> None:
    for name, _, reason in (one.partition(":") for one in (REFUSED, LATE)):
        assert reason in FAMILIES[name].values


def test_two_do_not_record_at_once_and_what_was_killed_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_PATIENCE_S", 0.1)
    ask = tmp_path / "profile.ask"
    ask.write_text(json.dumps({"name": "x", "seconds": 1, "until": 9e12}))
    with pytest.raises(ServerError, match="another profile") as caught:
        record(tmp_path, 0.1)
    assert str(ask) in (caught.value.hint or "") and ask.exists()
    ask.write_text("[]")
    with pytest.raises(ServerError, match="another profile"):
        record(tmp_path, 0.1)
    ask.write_text(json.dumps({"name": "x", "seconds": 1, "until": 5}))
    (tmp_path / "profile-x-1").touch()
    with pytest.raises(ServerError, match="no engine answers"):
        record(tmp_path, 0.1)
    assert not list(tmp_path.iterdir())


def test_processes_are_watched() -> None:
    over = threading.Event()
    with Watch(os.getpid(), lambda: (gpu(),)) as watch:
        while not watch.samples:
            over.wait(0.05)
    assert "supervisor" in watch.samples[0].cores and watch.samples[0].gpus == (gpu(),) and watch.samples[0].others >= 0


def test_only_cores_that_a_server_may_use_count(monkeypatch: pytest.MonkeyPatch) -> None:
    made = collections.namedtuple("times", "user idle iowait guest")
    times = [made(5.0, 3.0, 1.0, 0.0), made(50.0, 3.0, 1.0, 0.0)]
    monkeypatch.setattr("psutil.cpu_times", lambda percpu: times)
    assert watching._busy(frozenset({0})) == 5.0 and watching._busy(frozenset({0, 1})) == 55.0
    assert watching.cores_of(os.getpid()) == watching.cores_of(1 << 30) == os.sched_getaffinity(0)


def test_nothing_is_drawn_beside_the_axes() -> None:
    seen = observed(events(parts=WELL))
    late = [Sample(at, CPU, 0.1) for at in (-5 * MS, 500 * MS, 5_000 * MS)]
    drawn = xml.etree.ElementTree.fromstring(picture(seen.records, late, 0, 1.0))
    lines = [one.attrib["points"] for one in drawn.iter() if one.tag.endswith("polyline")]
    assert lines and all(60 <= float(point.split(",")[0]) <= 770 for line in lines for point in line.split())
