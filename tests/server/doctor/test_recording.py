"""How a server that runs is recorded, and what is made of the record. Run: pytest tests/server/doctor/test_recording.py"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import threading
import xml.etree.ElementTree
from pathlib import Path
from types import SimpleNamespace

import pytest

from fakes.nvml import gpu
from fakes.observed import CPU, MS, WELL, events, observed, running
from triune_runtime.generation import phases
from triune_runtime.metrics import FAMILIES
from triune_runtime.recorded import Timed
from triune_server.doctor import observing, recording, trace, watching, where
from triune_server.doctor.plot import picture
from triune_server.doctor.recording import Record, record
from triune_server.doctor.steps import LATE, REFUSED
from triune_server.doctor.trace import chrome
from triune_server.doctor.watching import Sample, Watch
from triune_server.doctor.where import over_time
from triune_server.errors import ServerError
from triune_server.options import ServerOptions
from triune_server.view import View


def test_parts_are_the_runtimes_own() -> None:
    known = {getattr(phases, name) for name in ("PLAN", "LAUNCH", "WAIT", "SAMPLE", "COMMIT", "TEXT", "DRAFT")}
    assert known | {"rest"} == where.PHASES.keys()
    assert (phases.STEP, phases.REQUEST, phases.COUNTS) == (trace.STEP, trace.REQUEST, trace.COUNTS)
    assert phases.Timed._fields == Timed._fields


def test_the_parts_of_a_step_are_the_whole_of_it() -> None:
    found = where.where(observed(events(parts=WELL)).records[0])
    assert found.steps == 100 and found.busy_s == pytest.approx(0.95) and sum(found.parts.values()) == pytest.approx(0.95)
    assert found.idle == pytest.approx(0.05) and found.share("launch", "rest") == pytest.approx(8.4 / 9.5)
    rows = over_time(events(parts=WELL), 0, 1.0, 7)
    assert sum(map(sum, rows.values())) == pytest.approx(0.95) and sum(rows["launch"]) == pytest.approx(0.8)
    assert where.where(Record("m", 1, 16, 0, 0, 0, ())).idle == 1.0


def test_the_trace_is_chromes_and_the_picture_is_svg() -> None:
    seen = observed([one._replace(about={"decodes": 3}) if one.name == "step" else one for one in events(parts=WELL)], busy=0.9)
    trace = json.loads(json.dumps(chrome(seen.records, seen.samples)))["traceEvents"]
    assert {one["ph"] for one in trace} == {"X", "C", "M", "b", "e"}
    steps = [one for one in trace if one["name"] == "step"]
    assert len(steps) == 100 and steps[1]["ts"] == 10_000 and steps[1]["dur"] == 9_500
    assert steps[1]["args"] == {"decodes": 3}
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
