"""The clients of the chaos suite tell right answers from wrong, cut, refused and missing ones.

Run: pytest tests/bench/test_chaos_answers.py
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from bench.chaos.answers import (
    ANSWERED,
    CHAT,
    CUT,
    ERROR,
    GENERATE,
    HUNG,
    REFUSED,
    STREAM,
    WRONG,
    Addresses,
    Outcome,
    Question,
    ask,
)
from bench.chaos.crowd import Crowd
from bench.chaos.running import blame, choose
from bench.chaos.scene import BROKEN, Fault
from bench.chaos.table import BY_NAME, FAULTS, SMOKE

QUESTION = Question("Why?", 4)
RIGHT = "Because of it."
TEXTS = {(protocol, QUESTION): RIGHT for protocol in (GENERATE, STREAM, CHAT)}
Event = dict[str, Any]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as it is told: a status, events, and whether it hangs after them."""

    status: ClassVar[int] = 200
    events: ClassVar[list[Event]] = []
    hangs: ClassVar[threading.Event | None] = None

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.end_headers()
        for event in self.events:
            text = json.dumps(event) if self.path.endswith("/generate") else f"data: {json.dumps(event)}\n\n"
            self.wfile.write(text.encode())
        if self.hangs is not None:
            self.wfile.flush()
            self.hangs.wait(30)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def where(monkeypatch: pytest.MonkeyPatch) -> Iterator[Addresses]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in (("status", 200), ("events", []), ("hangs", None)):
        monkeypatch.setattr(Handler, name, value)
    url = f"http://127.0.0.1:{server.server_port}"
    yield Addresses(url, "127.0.0.1:1", url, url)
    server.shutdown()
    server.server_close()


def tensor(text: str, finish: str = "") -> Event:
    return {"text_output": text, **({"finish_reason": finish} if finish else {})}


def delta(text: str, finish: str | None = None) -> Event:
    return {"choices": [{"delta": {"content": text}, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("protocol", "status", "events", "kind"),
    [
        (GENERATE, 200, [tensor(RIGHT, "length")], ANSWERED),
        (GENERATE, 200, [tensor("Because of him.", "length")], WRONG),
        (GENERATE, 200, [tensor("Because", "length")], WRONG),  # said to be whole
        (GENERATE, 200, [tensor("Because")], WRONG),
        (GENERATE, 200, [tensor("Because", "cancelled")], CUT),
        (GENERATE, 503, [{"error": "full"}], REFUSED),
        (GENERATE, 400, [{"error": "UNAVAILABLE [overloaded]: full"}], REFUSED),
        (GENERATE, 400, [{"error": "no such input"}], ERROR),
        (STREAM, 200, [tensor("Because "), tensor("of it.", "length")], ANSWERED),
        (STREAM, 200, [tensor("Because "), tensor("it.", "length")], WRONG),
        (STREAM, 200, [tensor("Because "), tensor("of", "length")], WRONG),  # said to be whole
        (STREAM, 200, [tensor("Because "), tensor("of")], CUT),
        (STREAM, 200, [tensor("Because "), {"error": "died"}], ERROR),
        (STREAM, 200, [{"error": "UNAVAILABLE [stopping]: it stops"}], REFUSED),
        (STREAM, 200, [tensor("Because "), tensor("of", "cancelled")], CUT),
        (CHAT, 200, [delta("Because "), delta("of it.", "length")], ANSWERED),
        (CHAT, 200, [delta("Because "), delta("of it.")], CUT),
        (CHAT, 200, [delta("Because of it. And", "length")], WRONG),
        (CHAT, 500, [{"error": {"message": "boom"}}], ERROR),
    ],
)
def test_each_end_of_an_answer_is_told_apart(
    where: Addresses, monkeypatch: pytest.MonkeyPatch, protocol: str, status: int, events: list[Event], kind: str
) -> None:
    monkeypatch.setattr(Handler, "status", status)
    monkeypatch.setattr(Handler, "events", events)
    outcome = ask(where, protocol, QUESTION, TEXTS, 10.0)
    assert outcome.kind == kind, outcome


def test_a_server_that_says_no_more_is_found_to_hang(where: Addresses, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(Handler, "hangs", over)
    monkeypatch.setattr(Handler, "events", [tensor("Because ")])
    assert ask(where, STREAM, QUESTION, TEXTS, 0.3).kind == HUNG
    over.set()


def test_nobody_who_listens_is_a_refusal() -> None:
    nobody = Addresses("http://127.0.0.1:1", "127.0.0.1:1", "http://127.0.0.1:1", "")
    assert ask(nobody, STREAM, QUESTION, TEXTS, 5.0).kind == REFUSED


def test_a_client_that_never_comes_back_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr("bench.chaos.crowd.ask", lambda *_: over.wait(60) and Outcome(HUNG, "", ""))
    monkeypatch.setattr("bench.chaos.crowd._GRACE_S", 0.2)
    crowd = Crowd(Addresses("", "", "", ""), TEXTS, size=2, patience_s=0.1)
    with crowd:
        pass
    assert crowd.counts() == {HUNG: 2}
    over.set()


def test_a_fault_is_blamed_for_what_bystanders_must_not_see(where: Addresses) -> None:
    quiet, loud = (Fault("x", lambda scene: None, may) for may in (frozenset[str](), BROKEN))
    refused = ask(Addresses("http://127.0.0.1:1", "", "", ""), STREAM, QUESTION, TEXTS, 5.0)
    assert blame(loud, [refused]) == [] and blame(quiet, [refused])[0].startswith("refused: 1 over generate_stream")


def test_a_fault_of_a_run_is_the_same_alone() -> None:
    run = dict(choose(FAULTS, 1, 300))
    assert dict(choose(FAULTS, 1, 17))[17] is run[17]
    assert {fault.name for number, fault in run.items() if number <= len(FAULTS)} == BY_NAME.keys()
    assert [fault.name for _, fault in choose(FAULTS, 2, 20)] != [run[number].name for number in range(1, 21)]


def test_no_two_faults_have_one_name_and_the_smoke_names_some_of_them() -> None:
    assert len(BY_NAME) == len(FAULTS) and BY_NAME.keys() >= set(SMOKE)
