"""What is recorded of requests, and who is told when. Run: pytest tests/runtime/test_records.py"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from triune_runtime.errors import Overloaded, RequestError
from triune_runtime.options.wire import Options
from triune_runtime.outbox import Item
from triune_runtime.request import Chunk, KvCounts, Request, Times
from triune_runtime.serving.draining import Draining
from triune_runtime.serving.records import Record, Recorder
from triune_runtime.serving.request_log import DESCRIPTOR, FORMAT, RequestLog, line, trace_id
from triune_runtime.serving.tracing import phases
from triune_runtime.text.cut import Cut

TIMES = Times(1.0, 1.5, 2.0, 3.0)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def chunk(index: int, reason: str | None = None) -> Chunk:
    return Chunk(index, Cut((7, 8), 0, 2), 2, reason, (), TIMES, kv=KvCounts(reused_tokens=3))  # type: ignore[arg-type]


class Told:
    """A recorder, what it says, and what passes through it."""

    def __init__(self) -> None:
        self.ended: list[Record] = []
        self.seen: list[Record] = []
        self.passed: list[Item] = []
        self.recorder = Recorder([self.ended.append], [self.seen.append])

    def serve(self, options: Options, key: int = 5, chunks: int = 2) -> Record:
        """A request whose chunks are sent, the last one as its last response."""
        record = self.recorder.begin("r1", options, (1, 2, 3, 4))
        request = Request(key=key, prompt=(1, 2, 3, 4), stream=options.stream)
        sink = self.recorder.sink(record, request, options, self.passed.append)
        reply = self.recorder.reply(record, lambda answer, last: None)
        for index in range(chunks):
            last = index == chunks - 1
            sink(chunk(index, "stop" if last else None))
            reply({}, last)
        return record


def test_a_record_has_counts_and_times_and_the_client_gets_only_what_it_asked_for() -> None:
    told = Told()
    record = told.serve(Options(trace=(TRACE,)))
    assert told.ended == [record]
    assert all(isinstance(one, Chunk) and one.times is None for one in told.passed)
    told.serve(Options(timed=True), key=6)
    assert all(isinstance(one, Chunk) and one.times == TIMES for one in told.passed[2:])
    said = line(record, "m")
    assert (said["prompt_tokens"], said["cached_tokens"], said["completion_tokens"]) == (4, 3, 4)
    assert (said["queue_s"], said["finish_reasons"], said["trace_id"]) == (0.5, ["stop"], TRACE[3:35])


def test_spans_wait_for_what_detokenize_has_to_say() -> None:
    told = Told()
    record = told.serve(Options())
    told.recorder.acknowledged(5)
    assert not told.seen
    told.recorder.acknowledged(5)
    told.recorder.acknowledged(5)
    assert told.seen == [record]
    told.recorder.sweep(0.0)
    assert told.seen == [record], "nobody is told twice"
    names = [(name, begin, end) for name, begin, end, _ in phases(record.sequences[0], 1, 0)]
    assert names[:3] == [("queue", 1.0, 1.5), ("prefill", 1.5, 2.0), ("decode", 2.0, 3.0)]
    assert names[3][0] == "detokenize" and names[3][1] <= names[3][2]


def test_who_asks_generate_directly_is_not_waited_for_for_ever() -> None:
    told = Told()
    record = told.serve(Options())
    told.recorder.sweep(60.0)
    assert not told.seen
    told.recorder.sweep(0.0)
    assert told.seen == [record]
    assert "detokenize" not in [name for name, *_ in phases(record.sequences[0], 1, 0)]


def test_a_request_that_failed_is_told_with_its_error() -> None:
    told = Told()
    record = told.recorder.begin("r1", Options(), (1,))
    told.recorder.end(record, Overloaded("full"))
    assert told.ended == told.seen == [record] and line(record, "m")["error"] == "overloaded"


class Words:
    """As `TokenBytes` where only its text is asked for."""

    def text(self, token_ids: Any, start: int = 0, stop: int | None = None) -> str:
        return "SECRET" + "".join(map(str, token_ids))


@pytest.mark.parametrize("text", [None, Words()])
def test_a_line_holds_words_only_if_that_is_asked_for(tmp_path: Path, text: Any) -> None:
    descriptor = os.open(tmp_path / "log", os.O_CREAT | os.O_WRONLY)
    log = RequestLog(descriptor, "m", text=text)
    log.write(Told().serve(Options()))
    log.refused("r2", RequestError("no", code="invalid_value"))
    os.close(descriptor)
    answered, refused = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert answered["source"] == "server" and answered["request_id"] == "r1" and "error" not in answered
    assert (refused["request_id"], refused["error"]) == ("r2", "invalid_value")
    assert ("SECRET" in json.dumps(answered)) == (text is not None)
    assert text is None or (answered["prompt"], answered["answers"]) == ("SECRET1234", ["SECRET7878"])


def test_without_being_asked_for_there_is_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FORMAT, raising=False)
    assert RequestLog.of_environment("m") is None
    monkeypatch.setenv(FORMAT, "json")
    monkeypatch.setenv(DESCRIPTOR, "")
    assert RequestLog.of_environment("m") is not None


@pytest.mark.parametrize("sent", [(), ("",), ("nonsense",), ("00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",)])
def test_what_is_no_trace_has_no_id(sent: tuple[str, ...]) -> None:
    assert trace_id(sent) is None


def test_a_server_that_stops_says_until_when(tmp_path: Path) -> None:
    file = tmp_path / "draining"
    draining = Draining(os.fsencode(file))
    assert not draining.begun and not Draining().begun
    file.write_text("123.5\n")
    assert draining.begun and draining.ends_at == 123.5
    file.write_text("")
    assert draining.begun and draining.ends_at == float("inf")
