"""Who a request is counted for, and which trace its latency shows. Run: pytest tests/gateway/test_tenants.py"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from fakes.ensemble import CHAT, COMPLETION, Ensemble, Gateway, answer
from triune_gateway.access_log import Access
from triune_gateway.keys import KEYS_VARIABLE, read_keys, split_name
from triune_gateway.metrics import Metrics, trace_of

Start = Callable[..., Gateway]
KEYS = ("a1 # alice", "a2 # alice", "b # bob", "c")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
OPENMETRICS = {"accept": "application/openmetrics-text;version=1.0.0"}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def counted(gateway: Gateway, name: str) -> dict[tuple[str, ...], float]:
    """Values of a metric by its labels' values, sorted by label."""
    samples = [s for f in parse_text(gateway.http.get("/metrics").text) for s in f.samples if s.name == name]
    return {tuple(s.labels[label] for label in sorted(s.labels)): s.value for s in samples}


def test_requests_and_tokens_are_counted_for_the_tenant_whose_key_came(start: Start, ensemble: Ensemble) -> None:
    ensemble.reply = lambda request: answer("a", "b")  # three tokens, after five
    gateway = start(api_keys=KEYS, aliases=("smollm2-135m", "small"))
    for key, model in (("a1", "triune"), ("a2", "small"), ("b", "smollm2-135m"), ("c", "triune")):
        assert gateway.http.post("/v1/completions", json=COMPLETION | {"model": model}, headers=bearer(key)).status_code == 200
    found = counted(gateway, "triune_openai_tenant_requests_total")
    one_name = "smollm2-135m"  # of one model, whatever it was called
    assert found == {(one_name, "200", "alice"): 2, (one_name, "200", "bob"): 1, (one_name, "200", "unnamed"): 1}
    tokens = counted(gateway, "triune_openai_tenant_tokens_total")
    assert tokens["prompt", one_name, "alice"] == 10 and tokens["completion", one_name, "bob"] == 3
    assert counted(gateway, "triune_openai_tenant_first_chunk_seconds_count")[one_name, "alice"] == 2
    assert counted(gateway, "triune_openai_tenant_request_seconds_count")[one_name, "bob"] == 1


def test_strangers_and_unknown_models_add_no_series(start: Start) -> None:
    gateway = start(api_keys=KEYS)
    gateway.http.post("/v1/chat/completions", json=CHAT, headers=bearer("alice"))
    gateway.http.post("/v1/chat/completions", json=CHAT | {"model": "made-up"}, headers=bearer("a1"))
    gateway.http.get("/v1/models", headers=bearer("a1"))
    assert counted(gateway, "triune_openai_tenant_requests_total") == {}


def test_the_name_is_no_part_of_the_key(start: Start) -> None:
    gateway = start(api_keys=KEYS)
    assert gateway.http.get("/v1/models", headers=bearer("a1 # alice")).status_code == 401
    assert gateway.http.get("/v1/models", headers=bearer("a1")).status_code == 200


def test_the_access_log_names_the_tenant(start: Start, tmp_path: Path) -> None:
    gateway = start(api_keys=KEYS, access_log=str(tmp_path / "log"))
    gateway.http.get("/v1/models", headers=bearer("b"))
    gateway.http.get("/v1/models")
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line.get("tenant") for line in lines] == ["bob", None]


def test_names_come_with_keys_from_files_and_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# of the team\none # alice\ntwo #bob.x\n")
    found = read_keys({}, file)
    assert [split_name(key) for key in found] == [("one", "alice"), ("two", "bob.x")]
    assert found == read_keys({KEYS_VARIABLE: "one # alice, two #bob.x"})


@pytest.mark.parametrize("key", ["k", "two ü", "a#b", "a # two words", "a # ", f"a # {'x' * 65}"])
def test_what_is_no_name_is_part_of_the_key_as_ever(key: str) -> None:
    assert split_name(key) == (key, "unnamed")


def test_series_are_bounded_whatever_names_come() -> None:
    metrics = Metrics()
    for number in range(300):
        access = Access(request_id="", client=None, method="POST", path="/v1/completions", tenant=f"t{number}", status=200)
        metrics.of_tenant(access, f"m{number % 70}")
    text, _ = metrics.render()
    labels = [s.labels for f in parse_text(text.decode()) for s in f.samples if "tenant" in s.labels]
    assert len({one["tenant"] for one in labels}) == 101 and len({one["model_name"] for one in labels}) == 51


def test_openmetrics_shows_the_trace_of_a_latency_and_the_plain_text_is_as_ever(start: Start) -> None:
    gateway = start()
    gateway.http.post("/v1/chat/completions", json=CHAT, headers=PARENT)
    reply = gateway.http.get("/metrics", headers=OPENMETRICS)
    assert reply.headers["content-type"].startswith("application/openmetrics-text")
    shown = [s for f in parse_openmetrics(reply.text) for s in f.samples if s.exemplar]
    assert {s.name.removesuffix("_bucket") for s in shown} == {
        "triune_openai_request_seconds", "triune_openai_first_chunk_seconds",
    }  # fmt: skip
    assert {s.exemplar.labels["trace_id"] for s in shown if s.exemplar} == {TRACE}
    plain = gateway.http.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain") and TRACE not in plain.text


@given(st.binary(max_size=80))
def test_only_a_traceparent_that_is_one_names_a_trace(value: bytes) -> None:
    assert trace_of([(b"traceparent", value)]) is None  # which random bytes never are


@pytest.mark.parametrize(
    ("value", "trace"),
    [(PARENT["traceparent"], TRACE), (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
     (f"00-{TRACE.upper()}-00f067aa0ba902b7-01", None), (f"00-{TRACE}", None), ("", None)],
)  # fmt: skip
def test_a_trace_has_an_id_that_is_not_all_zeros(value: str, trace: str | None) -> None:
    assert trace_of([(b"traceparent", value.encode())]) == trace


def test_the_server_is_told_whose_request_it_is(start: Callable[..., Gateway]) -> None:
    """By the name of its key, else by the key, else by its address: what clients say themselves counts for nothing."""

    def told(gateway: Gateway, **headers: str) -> str:
        gateway.post("chat/completions", CHAT, **{"x-triune-client": "somebody else"}, **headers)
        return gateway.ensemble.headers[-1]["x-triune-client"]

    open_to_all = start()
    assert told(open_to_all) == "testclient"
    keyed = start(api_keys=("one # münchen", "two # team.b", "three", "four"))
    names = [told(keyed, authorization=f"Bearer {key}") for key in ("one", "two", "three", "four", "three")]
    assert names[:2] == ["m%C3%BCnchen", "team.b"]
    assert names[2] == names[4] != names[3]
    assert all("three" not in name and name.isascii() for name in names)
