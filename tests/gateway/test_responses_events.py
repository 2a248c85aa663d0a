"""/v1/responses as a stream: which events, in which order. Run: pytest tests/gateway/test_responses_events.py"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from fakes.ensemble import Ensemble, Gateway, Piece, answer, piece
from triune_gateway.settings import Settings

Json = dict[str, Any]
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
TOOLS = [{"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}]
ASK: Json = {"model": "triune", "input": "Hi", "tools": TOOLS}
_CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'


def events(gateway: Gateway, **body: Any) -> list[Json]:
    """The events of a stream, each checked to be one that the package openai knows."""
    response = gateway.post("responses", ASK | body | {"stream": True})
    assert response.status_code == 200, response.text
    found = []
    for block in response.text.split("\n\n")[:-1]:
        name, data = re.fullmatch(r"event: (.*)\ndata: (.*)", block).groups()  # type: ignore[union-attr]
        event = json.loads(data)
        assert event["type"] == name
        EVENT.validate_python(event)
        found.append(event)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def rebuilt(found: list[Json]) -> list[Json]:
    """The output as a client builds it from the events alone; what they say twice must agree."""
    output: list[Json] = []
    text: dict[int, str] = {}
    open_places: set[int] = set()
    for event in found:
        kind, place = event["type"], event.get("output_index", -1)
        if kind == "response.output_item.added":
            assert place == len(output) and not open_places
            output.append(event["item"])
            text[place] = ""
            open_places.add(place)
        elif kind.endswith(".delta"):
            assert place in open_places and event["delta"] and event["item_id"] == output[place]["id"]
            text[place] += event["delta"]
        elif kind.endswith(("_text.done", "arguments.done")):
            assert event.get("text", event.get("arguments")) == text[place]
        elif kind.endswith("part.done"):
            assert event["part"]["text"] == text[place]
        elif kind == "response.output_item.done":
            item = event["item"]
            inner = item.get("content") or item.get("summary") or [{"text": item.get("arguments")}]
            assert inner[0]["text"] == text[place] and item["id"] == output[place]["id"]
            output[place] = item
            open_places.remove(place)
    assert not open_places
    return output


def test_events_come_in_the_order_that_clients_rely_on(ensemble: Ensemble, gateway: Gateway) -> None:
    ensemble.reply = lambda request: [
        piece(reasoning_output="hm ") | {"num_input_tokens": 5}, piece(reasoning_output="so"),
        piece("Let me see.\n" + _CALL, tool_format="hermes"), piece("", "stop"),
    ]  # fmt: skip
    assert [event["type"].removeprefix("response.") for event in events(gateway)] == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.delta",
        "reasoning_text.done", "content_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.done", "content_part.done",
        "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    summarized = [event["type"].removeprefix("response.") for event in events(gateway, reasoning={"summary": "auto"})]
    assert summarized[2:9] == [
        "output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta", "reasoning_summary_text.delta",
        "reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done",
    ]  # fmt: skip


def test_a_cut_answer_ends_incomplete(ensemble: Ensemble, gateway: Gateway) -> None:
    ensemble.reply = lambda request: answer("Hel", "lo", reason="length")
    last = events(gateway)[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


def test_an_answer_that_breaks_off_ends_failed(ensemble: Ensemble, gateway: Gateway) -> None:
    ensemble.reply = lambda request: [piece("Hel"), {"error": "INTERNAL [engine_failed]: the engine failed"}]
    *_, last = events(gateway)
    assert last["type"] == "response.failed" and last["response"]["status"] == "failed"
    assert last["response"]["error"]["code"] == "server_error" and "the engine failed" in last["response"]["error"]["message"]
    assert gateway.http.get(f"/v1/responses/{last['response']['id']}").status_code == 404


def test_a_refusal_before_the_first_event_has_a_status(ensemble: Ensemble, gateway: Gateway) -> None:
    ensemble.reply = lambda request: (400, "INVALID_ARGUMENT [too_long prompt]: prompt has 9 tokens")
    error = gateway.error("responses", ASK | {"stream": True}, 400)
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")


def test_events_come_while_the_answer_is_made(ensemble: Ensemble, gateway: Gateway) -> None:
    gate = asyncio.Event()
    ensemble.reply = lambda request: [piece("Hel"), gate, piece("lo", "stop")]
    seen = []
    with gateway.http.stream("POST", "/v1/responses", json=ASK | {"stream": True}) as response:
        for line in response.iter_lines():
            seen.append(line)
            if "output_text.delta" in line:
                gateway.http.portal.call(gate.set)  # type: ignore[union-attr]
    assert any("response.completed" in line for line in seen)


WORDS = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(["é😀", "\u2028", "<tool_call>", '"', "\\n"])


@settings(max_examples=60, deadline=None)
@given(
    thought=st.lists(WORDS, max_size=3), text=st.lists(WORDS, max_size=4), calls=st.integers(0, 2), data=st.data(),
    reason=st.sampled_from(["stop", "length"]), summary=st.sampled_from([None, "auto"]),
)  # fmt: skip
def test_however_an_answer_is_cut_its_deltas_are_the_whole_answer(
    thought: list[str], text: list[str], calls: int, data: st.DataObject, reason: str, summary: str | None
) -> None:
    said = "A" + "".join(text).replace("<tool_call>", "") + "\n" + _CALL * calls

    def cut() -> list[Piece]:
        places = sorted(data.draw(st.lists(st.integers(0, len(said)), max_size=6)))
        texts = [said[a:b] for a, b in zip([0, *places], [*places, len(said)], strict=True)]
        thoughts: list[Piece] = [piece(reasoning_output=one) for one in thought]
        return [*thoughts, *(piece(one) | {"tool_format": "hermes"} for one in texts), piece("", reason)]

    scripts = [cut(), cut()]
    ensemble = Ensemble()
    ensemble.reply = lambda request: scripts[len(ensemble.requests) - 1]
    gateway = Gateway(ensemble, Settings())
    with gateway.http:
        whole = gateway.post("responses", ASK | {"reasoning": {"summary": summary}}).json()
        Response.model_validate(whole)
        found = events(gateway, reasoning={"summary": summary})
    assert rebuilt(found) == found[-1]["response"]["output"]
    assert found[-1]["type"] == f"response.{whole['status']}"
    assert without_ids(found[-1]["response"]) == without_ids(whole)
    texts = [item["content"][0]["text"] for item in whole["output"] if item["type"] == "message"]
    assert "".join(texts).rstrip() == said.partition(_CALL)[0].rstrip()


def without_ids(response: Json) -> list[Json]:
    return [{name: value for name, value in item.items() if name not in ("id", "call_id")} for item in response["output"]]
