"""Answers that are kept to go on from. Run: pytest tests/gateway/test_responses_store.py"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes.ensemble import Gateway, answer
from triune_gateway.responses.store import Store, Stored

Json = dict[str, Any]


def respond(gateway: Gateway, text: str = "Hi", key: str = "", **body: Any) -> Json:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    response = gateway.post("responses", {"model": "triune", "input": text} | body, **headers)
    assert response.status_code == 200, response.text
    found: Json = response.json()
    return found


def get(gateway: Gateway, path: str) -> Json:
    response = gateway.http.get(f"/v1/responses/{path}")
    assert response.status_code == 200, response.text
    found: Json = response.json()
    return found


def error(gateway: Gateway, body: Json, status: int = 400) -> Json:
    return gateway.error("responses", {"model": "triune", "input": "Hi"} | body, status)


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_goes_on_from_an_answer(gateway: Gateway, stream: bool) -> None:
    first = respond(gateway, "One", instructions="Be brief.")
    second = respond(gateway, "Two", previous_response_id=first["id"])
    gateway.post("responses", {"model": "triune", "input": "Three", "previous_response_id": second["id"], "stream": stream})
    asked = [(m["role"], m["content"]) for m in json.loads(gateway.ensemble.requests[-1]["messages"])]
    assert asked == [("user", "One"), ("assistant", "Hello"), ("user", "Two"), ("assistant", "Hello"), ("user", "Three")]


def test_a_streamed_answer_is_kept_before_its_last_event(gateway: Gateway) -> None:
    response = gateway.post("responses", {"model": "triune", "input": "Hi", "stream": True})
    last = json.loads(response.text.rstrip().rpartition("data: ")[2])["response"]
    assert get(gateway, last["id"]) == last


def test_items_are_found_by_their_ids(gateway: Gateway) -> None:
    first = respond(gateway, "One")
    items = [{"type": "item_reference", "id": first["output"][0]["id"]}, {"role": "user", "content": "Two"}]
    respond(gateway, input=items)
    assert json.loads(gateway.ensemble.requests[-1]["messages"])[0] == {"role": "assistant", "content": "Hello"}
    respond(gateway, input=items)  # by now it is an item of two
    assert error(gateway, {"input": [{"id": "msg_none"}]}, 404)["param"] == "input"


@pytest.mark.parametrize(
    ("reference", "code"),
    [({}, "missing_required_parameter"), ({"id": None}, "missing_required_parameter"), ({"id": 3}, "invalid_type")],
)
def test_a_reference_to_no_item_is_refused_by_name(gateway: Gateway, reference: Json, code: str) -> None:
    found = error(gateway, {"input": [{"role": "user", "content": "One"}, {"type": "item_reference", **reference}]})
    assert (found["param"], found["code"]) == ("input[1].id", code)


def test_input_items_are_all_that_an_answer_was_made_from(gateway: Gateway) -> None:
    first = respond(gateway, "One")
    second = respond(gateway, "Two", previous_response_id=first["id"])
    found = get(gateway, f"{second['id']}/input_items?order=asc")
    assert [item["content"][0]["text"] for item in found["data"]] == ["One", "Hello", "Two"]
    newest = get(gateway, f"{second['id']}/input_items?limit=1")
    assert (newest["data"], newest["has_more"]) == (found["data"][-1:], True)
    rest = get(gateway, f"{second['id']}/input_items?after={newest['last_id']}")
    assert (rest["data"], rest["has_more"]) == (found["data"][1::-1], False)
    for query in ("limit=0", "order=up", "after=msg_none"):
        assert gateway.http.get(f"/v1/responses/{second['id']}/input_items?{query}").status_code == 400


def test_an_answer_can_be_forgotten_and_others_cannot_go_on_from_it(gateway: Gateway) -> None:
    first = respond(gateway)
    assert gateway.http.delete(f"/v1/responses/{first['id']}").json()["deleted"] is True
    assert gateway.http.delete(f"/v1/responses/{first['id']}").status_code == 404
    assert gateway.http.get(f"/v1/responses/{first['id']}").status_code == 404
    found = error(gateway, {"previous_response_id": first["id"]})
    assert (found["param"], found["code"]) == ("previous_response_id", "previous_response_not_found")


def test_an_answer_that_is_not_to_be_kept_is_not(gateway: Gateway) -> None:
    found = respond(gateway, store=False)
    assert found["store"] is False
    assert gateway.http.get(f"/v1/responses/{found['id']}").status_code == 404


def test_a_failed_answer_is_not_kept(gateway: Gateway) -> None:
    gateway.ensemble.reply = lambda request: answer("Hel", reason="cancelled")
    error(gateway, {}, 503)
    assert gateway.app.state.serving.responses._count == 0


def test_cancelling_is_refused_by_name(gateway: Gateway) -> None:
    response = gateway.http.post(f"/v1/responses/{respond(gateway)['id']}/cancel")
    assert response.status_code == 400 and "background" in response.json()["error"]["message"]
    assert gateway.http.post("/v1/responses/resp_none/cancel").status_code == 404


def test_what_one_key_has_stored_another_cannot_read(start: Callable[..., Gateway]) -> None:
    gateway = start(api_keys=("a", "b"))
    first = respond(gateway, key="a")
    item = first["output"][0]["id"]
    for key, status in (("a", 200), ("b", 404)):
        headers = {"authorization": f"Bearer {key}"}
        assert gateway.http.get(f"/v1/responses/{first['id']}", headers=headers).status_code == status
        body = {"model": "triune", "input": [{"id": item}]}
        assert gateway.post("responses", body, **headers).status_code == status
    assert gateway.http.delete(f"/v1/responses/{first['id']}", headers={"authorization": "Bearer b"}).status_code == 404


def test_what_was_not_used_for_longest_makes_room(start: Callable[..., Gateway]) -> None:
    gateway = start(max_responses=2)
    one, two = respond(gateway), respond(gateway)
    get(gateway, one["id"])
    three = respond(gateway)
    assert [gateway.http.get(f"/v1/responses/{each['id']}").status_code for each in (one, two, three)] == [200, 404, 200]


def test_answers_are_kept_up_to_a_size(start: Callable[..., Gateway]) -> None:
    gateway = start(max_responses_bytes=5000)
    kept = [respond(gateway)["id"] for _ in range(20)]
    alive = [name for name in kept if gateway.http.get(f"/v1/responses/{name}").status_code == 200]
    assert 0 < len(alive) < 10 and alive == kept[-len(alive) :]
    big = respond(gateway, "x" * 6000)["id"]
    assert gateway.http.get(f"/v1/responses/{big}").status_code == 404


def test_a_server_that_keeps_nothing_says_so(start: Callable[..., Gateway]) -> None:
    assert respond(start(max_responses=0))["store"] is False


def test_a_file_keeps_answers_over_a_restart_for_its_owner_alone(start: Callable[..., Gateway], tmp_path: Path) -> None:
    file = tmp_path / "responses.sqlite"
    first = respond(start(responses_file=str(file)))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = start(responses_file=str(file), max_responses=1)
    assert get(again, first["id"]) == first
    respond(again)
    assert again.http.get(f"/v1/responses/{first['id']}").status_code == 404


def test_what_a_store_holds_is_counted_right() -> None:
    store = Store(most=3, most_bytes=10_000)
    for number in range(7):
        response = {"id": f"resp_{number}", "output": [{"id": f"msg_{number}"}], "previous_response_id": None}
        store.put("", Stored(response=response, input=[]))
    assert store.delete("", "resp_5") and not store.delete("", "resp_5") and not store.delete("x", "resp_6")
    assert store._database.execute("SELECT count(*), sum(bytes) FROM responses").fetchone() == (store._count, store._bytes)
    assert store._count == 2
    assert store.item("", "msg_6") == {"id": "msg_6"} and store.item("", "msg_5") is None
    assert store._database.execute("SELECT count(*) FROM items").fetchone() == (2,)
