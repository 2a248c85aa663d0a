"""A gateway before a server that is full refuses by itself, soon asks again, and tells clients apart where the server does.

Run: pytest tests/gateway/test_full.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes.ensemble import CHAT, COMPLETION, Ensemble, Gateway, answer, error_of
from triune_gateway.gates import PROBE_S, Gates

Start = Callable[..., Gateway]
FULL = (503, "UNAVAILABLE [overloaded]: 272 requests are here already")
ONE_SHARE = (503, "UNAVAILABLE [overloaded x-triune-client]: 192 requests of this client are waiting already")
GENERATING = {
    "chat/completions": CHAT,
    "completions": COMPLETION,
    "responses": {"model": "triune", "input": "Hi"},
    "messages": {"model": "triune", "max_tokens": 5, "messages": CHAT["messages"]},
}


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of the gates, which stands still."""
    now = [0.0]
    monkeypatch.setattr(Gates.__init__, "__defaults__", (lambda: now[0], None))
    return now


@pytest.mark.parametrize("path", GENERATING)
def test_after_the_server_s_word_the_gateway_refuses_as_the_server_does(
    gateway: Gateway, ensemble: Ensemble, path: str
) -> None:
    ensemble.reply = lambda request: FULL
    found = [gateway.post(path, GENERATING[path]) for _ in range(5)]
    assert len(ensemble.requests) == 1, "it was asked again"
    kinds = [
        (one.status_code, one.headers["retry-after"], error_of(one)["code"] if path != "messages" else "") for one in found
    ]
    assert kinds == [kinds[0]] * 5 and kinds[0][:2] == (503, "1")


def test_a_request_is_refused_before_it_is_read_and_no_other_endpoint_is(gateway: Gateway, ensemble: Ensemble) -> None:
    ensemble.reply = lambda request: FULL
    gateway.post("completions", COMPLETION)
    assert gateway.post("completions", "no JSON object").status_code == 503
    assert gateway.http.post("/tokenize", json={"prompt": "Hi"}).status_code == 200
    assert gateway.http.get("/v1/models").status_code == 200
    count = {"model": "triune", "messages": CHAT["messages"]}
    assert gateway.post("messages/count_tokens", count).status_code == 200


def test_one_request_goes_on_now_and_then_and_what_it_is_told_holds(
    gateway: Gateway, ensemble: Ensemble, clock: list[float]
) -> None:
    ensemble.reply = lambda request: FULL
    for _ in range(3):
        gateway.post("completions", COMPLETION)
        assert gateway.post("completions", COMPLETION).status_code == 503
        clock[0] += PROBE_S
    assert len(ensemble.requests) == 3
    ensemble.reply = lambda request: answer("ok")
    assert [gateway.post("completions", COMPLETION).status_code for _ in range(5)] == [200] * 5


def test_a_wrong_request_does_not_use_up_the_one_that_goes_on(gateway: Gateway, ensemble: Ensemble, clock: list[float]) -> None:
    ensemble.reply = lambda request: FULL
    gateway.post("completions", COMPLETION)
    clock[0] += PROBE_S
    ensemble.reply = lambda request: answer("ok")
    assert gateway.post("completions", COMPLETION | {"n": -1}).status_code == 400
    assert gateway.complete()["choices"]


def test_only_the_client_that_has_too_much_is_refused(start: Start, ensemble: Ensemble) -> None:
    gateway = start(api_keys=("g # greedy", "o # other"))
    greedy, other = ({"authorization": f"Bearer {key}"} for key in "go")
    ensemble.reply = lambda request: ONE_SHARE
    error = gateway.error("completions", COMPLETION, 503, **greedy)
    assert (error["code"], error["param"]) == ("overloaded", None)
    ensemble.reply = lambda request: answer("ok")
    assert gateway.post("completions", COMPLETION, **greedy).status_code == 503
    assert gateway.post("completions", COMPLETION, **other).status_code == 200


@pytest.mark.parametrize("code", ["stopping", "overloaded response_format"])
def test_what_is_not_for_want_of_places_closes_nothing(gateway: Gateway, ensemble: Ensemble, code: str) -> None:
    ensemble.reply = lambda request: (503, f"UNAVAILABLE [{code}]: no")
    assert gateway.post("completions", COMPLETION).status_code == 503
    ensemble.reply = lambda request: answer("ok")
    assert gateway.complete()["choices"]


def test_of_several_models_only_the_one_that_is_full_refuses(start: Start, ensemble: Ensemble, tmp_path: Path) -> None:
    file = tmp_path / "models.json"
    file.write_text(json.dumps({"second": {"ensemble": "second", "tokenizer": "second__tokenize"}}))
    gateway = start(models_file=file)

    def asked(model: str, **more: Any) -> int:
        return gateway.post("completions", COMPLETION | {"model": model} | more).status_code

    ensemble.reply = lambda request: FULL
    assert [asked("second"), asked("second")] == [503, 503] and ensemble.asked == ["second"]
    ensemble.reply = lambda request: answer("ok")
    assert (asked("triune"), asked("second"), asked("second", n=-1)) == (200, 503, 400)


def test_refusals_are_counted_and_logged_as_the_server_s_are(start: Start, ensemble: Ensemble, tmp_path: Path) -> None:
    gateway = start(access_log=str(tmp_path / "log"), api_keys=("k # team",))
    ensemble.reply = lambda request: FULL
    for _ in range(2):
        gateway.post("completions", COMPLETION, authorization="Bearer k")
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    known = [{name: line[name] for name in ("status", "error", "model", "tenant")} for line in lines]
    assert known == [{"status": 503, "error": "overloaded", "model": "triune", "tenant": "team"}] * 2
    text = gateway.http.get("/metrics").text
    assert 'triune_openai_tenant_requests_total{model_name="triune",status="503",tenant="team"} 2.0' in text
