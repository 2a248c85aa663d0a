"""Random requests to the OpenAI-compatible API, made by schemathesis from its own description, over the real server.

Run: pytest tests/fuzz/test_openai.py; with more cases: make fuzz
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from support.fuzzing import CASES_OF_EACH, PATIENCE_S, TEXTS, Tally
from support.real_server import RealServer

pytestmark = pytest.mark.triton
RIGHT, WRONG = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
OPERATIONS = [
    ("POST", "/v1/chat/completions", RIGHT), ("POST", "/v1/chat/completions", WRONG),
    ("POST", "/v1/completions", RIGHT), ("POST", "/v1/completions", WRONG),
    ("POST", "/v1/responses", RIGHT), ("POST", "/v1/responses", WRONG),
    ("POST", "/v1/messages", RIGHT), ("POST", "/v1/messages", WRONG), ("POST", "/v1/messages/count_tokens", RIGHT),
    ("POST", "/tokenize", RIGHT), ("POST", "/tokenize", WRONG), ("POST", "/detokenize", RIGHT),
    ("GET", "/v1/models", RIGHT), ("GET", "/v1/models/{model}", RIGHT), ("GET", "/health", RIGHT), ("GET", "/metrics", RIGHT),
]  # fmt: skip
# What the server has no use for is refused whatever its value: with it, few requests would get further than that.
REFUSED = {
    "functions", "function_call", "audio", "modalities", "prediction", "store", "verbosity", "web_search_options", "best_of",
    "suffix", "reasoning_effort", "background", "background_options", "conversation", "context_management", "moderation",
    "image", "access_programs", "previous_response_id", "container", "mcp_servers", "diagnostics", "speed", "output_config",
    "chat_template", "mm_processor_kwargs",
}  # fmt: skip
# Where a body says how long its answer may be.
LENGTHS = {
    "/v1/chat/completions": "max_tokens", "/v1/completions": "max_tokens", "/v1/messages": "max_tokens",
    "/v1/responses": "max_output_tokens",
}  # fmt: skip
_LAST_EVENTS = ("message_stop", "error", "response.completed", "response.incomplete", "response.failed")
_KINDS = {"invalid_request_error", "authentication_error", "rate_limit_error", "server_error"}
load_all_checks()
_CHECKS = CHECKS.get_by_names(
    ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
)


@st.composite
def likely(draw: st.DrawFn, body: dict[str, Any], path: str) -> dict[str, Any]:
    """The body, without most of what would have it refused at once, and with an answer that is short."""
    body = dict(body)
    if draw(st.integers(0, 9)) < 9:
        body["model"] = "triune"
        body.pop("stream_options" if not body.get("stream") else "", None)
        for name in REFUSED & body.keys():
            del body[name]
        if not body.get("tools"):
            body.pop("tool_choice", None)
        if path == "/tokenize" and "messages" in body:
            body.pop("prompt", None)
    length = LENGTHS.get(path)
    if length and (length not in body or draw(st.integers(0, 3)) < 3):
        body[length] = draw(st.integers(1, 6))
        body.pop("max_completion_tokens", None)
        body.pop("min_tokens", None)
        if path in ("/v1/chat/completions", "/v1/completions"):
            body["n"] = draw(st.sampled_from([None, 1, 2]))
    if draw(st.integers(0, 3)) < 3:
        if "messages" in body:
            turns = st.fixed_dictionaries(
                {"role": st.sampled_from(["user", "system", "developer", "assistant"]), "content": TEXTS}
            )
            body["messages"] = draw(st.lists(turns, min_size=1, max_size=3))
            if not body.get("logprobs"):
                body.pop("top_logprobs", None)
        elif path == "/v1/responses":
            body["input"] = draw(TEXTS.filter(bool))
        elif "prompt" in body and path == "/v1/completions":
            body["prompt"] = draw(TEXTS.filter(bool) | st.lists(TEXTS.filter(bool), min_size=1, max_size=3))
    return body


@pytest.mark.parametrize(("method", "path", "mode"), OPERATIONS, ids=lambda value: str(getattr(value, "value", value)))
def test_requests_of_the_description(target: RealServer, tally: Tally, method: str, path: str, mode: GenerationMode) -> None:
    url = target.options.openai_url
    operation = schemathesis.openapi.from_url(f"{url}/openapi.json")[path][method]
    session = requests.Session()

    @CASES_OF_EACH
    @given(operation.as_strategy(generation_mode=mode), st.data())
    def fuzz(case: Any, data: st.DataObject) -> None:
        if isinstance(case.body, dict) and data.draw(st.integers(0, 4)) < 4:
            case.body = data.draw(likely(case.body, path))
        response = case.call(base_url=url, session=session, timeout=PATIENCE_S)
        tally.count(f"{method} {path}, {mode.value}", response.status_code)
        check(case, response)

    fuzz()


_GOOD = json.dumps(
    {
        "model": "triune",
        "messages": [{"role": "user", "content": "é"}],
        "max_tokens": 2,
        "stop": ["x"],
        "logit_bias": {"5": 1.5},
    }
)


PATHS = (
    "v1/chat/completions", "v1/completions", "v1/responses", "v1/messages", "v1/messages/count_tokens", "v1/models", "v1/nope",
    "tokenize", "detokenize",
)  # fmt: skip


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A good body with some of its bytes changed, or any bytes."""
    if draw(st.integers(0, 3)) == 3:
        return draw(st.binary(max_size=60))
    body = bytearray(_GOOD, "utf-8")
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(body) - 1))
        body[at : at + draw(st.integers(0, 3))] = draw(
            st.sampled_from([b"", b'"', b"{", b"[" * 2000, b"1e999", b"-", b"null", b"\0", b"\xff", b"\\ud800"])
            | st.binary(max_size=3)
        )
    return bytes(body)


def test_bodies_that_are_broken(target: RealServer, tally: Tally) -> None:
    session = requests.Session()
    kinds = st.sampled_from(
        ["application/json"] * 5 + ["text/plain", "", "application/json; charset=utf-16", "multipart/form-data"]
    )

    @CASES_OF_EACH
    @given(st.sampled_from(PATHS), broken(), kinds, st.integers(0, 9))
    def fuzz(path: str, body: bytes, kind: str, odd: int) -> None:
        method = "PUT" if odd == 9 else "POST"
        headers = {"content-type": kind, **({"content-encoding": "gzip"} if odd == 8 else {})}
        url = f"{target.options.openai_url}/{path}"
        response = session.request(method, url, data=body, headers=headers, timeout=PATIENCE_S)
        tally.count("broken bodies", response.status_code)
        check_answer(response.status_code, response.headers.get("content-type", ""), response.text)

    fuzz()


def check(case: Any, response: Any) -> None:
    """An answer as the description has it."""
    if response.status_code != 503:
        case.validate_response(response, checks=_CHECKS)
    check_answer(response.status_code, response.headers.get("content-type", [""])[0], response.content.decode())


def check_answer(status: int, kind: str, text: str) -> None:
    """An answer, or an error that is the client's, in the protocol's shape; a stream that ends as it should."""
    assert status < 500 or status == 503
    if status != 200:
        check_error(json.loads(text))
    elif kind.startswith("text/event-stream"):
        blocks = [one for one in text.split("\n\n") if one]
        if blocks[0].startswith("event: "):
            check_named_events(blocks)
            return
        events = [one.removeprefix("data: ") for one in blocks]
        assert events[-1] == "[DONE]"
        for event in map(json.loads, events[:-1]):
            if "error" in event:
                check_error(event)
            else:
                assert event["object"] in ("chat.completion.chunk", "text_completion")


def check_named_events(blocks: list[str]) -> None:
    """The events of a response or a message: each is of the type that its name says, and only the last one ends the stream."""
    types = []
    for block in blocks:
        name, data = block.split("\n", 1)
        event = json.loads(data.removeprefix("data: "))
        assert event["type"] == name.removeprefix("event: ")
        types.append(event["type"])
    assert [one for one in types if one in _LAST_EVENTS] == types[-1:]


def check_error(body: dict[str, Any]) -> None:
    error = body["error"]
    if body.get("type") == "error":  # Anthropic's shape
        assert set(body) == {"type", "error"} and set(error) == {"type", "message"}
        assert error["type"] != "api_error", error
    else:
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"] in _KINDS
        assert error["type"] != "server_error" or error["code"] in ("overloaded", "not_ready"), error
    assert error["message"] and "Traceback" not in error["message"] and ".py" not in error["message"], error
