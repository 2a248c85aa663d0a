"""The server's codes alone decide what its errors are to OpenAI's clients. Run: pytest tests/gateway/test_codes.py"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import triune_gateway
from fakes.ensemble import CHAT, COMPLETION, Gateway, answer, error_of, piece
from triune_gateway.errors import MEANINGS
from triune_runtime.errors import CODES

SOURCES = sorted(Path(triune_gateway.__file__).parent.rglob("*.py"))
STATUSES = {
    "INVALID_ARGUMENT": (400, "invalid_request_error"),
    "UNAVAILABLE": (503, "server_error"),
    "INTERNAL": (500, "server_error"),
}
OPENAI = {"too_long": "context_length_exceeded", "overloaded": "overloaded", "stopping": "overloaded"}


def test_every_code_of_the_server_is_known() -> None:
    assert set(MEANINGS) == set(CODES)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("code", CODES)
def test_a_code_decides_whatever_the_message_says(gateway: Gateway, code: str, stream: bool) -> None:
    misleading = "tools of 9 sequences are asked for, but this engine holds 8; UNAVAILABLE: unknown model"
    gateway.ensemble.reply = lambda request: (400, f"{CODES[code]} [{code} temperature]: {misleading}")  # type: ignore[index]
    response = gateway.post("chat/completions", CHAT | {"stream": stream, "temperature": 1.0})
    error = error_of(response)
    status, kind = STATUSES[CODES[code]]  # type: ignore[index]
    assert (response.status_code, error["type"], error["code"]) == (status, kind, OPENAI.get(code))
    assert (error["param"], error["message"]) == ("temperature", misleading)
    assert ("retry-after" in response.headers) == (status == 503)


@pytest.mark.parametrize(
    ("path", "body", "named", "param"),
    [
        ("completions", {"n": 2}, "n", "n"),
        ("completions", {}, "prompt", "prompt"),
        ("completions", {}, "text_input", "prompt"),
        ("completions", {}, "max_tokens", None),  # the client left it out
        ("chat/completions", {}, "prompt", "messages"),
        ("chat/completions", {}, "messages[0].content", "messages[0].content"),
        ("chat/completions", {"max_tokens": 5}, "max_tokens", "max_tokens"),
        ("chat/completions", {"max_completion_tokens": 5}, "max_tokens", "max_completion_tokens"),
        ("chat/completions", {"response_format": {"type": "x"}}, "response_format", "response_format"),
        ("chat/completions", {"structured_outputs": {"regex": "("}}, "response_format", "structured_outputs"),
        ("chat/completions", {"reasoning_effort": "none"}, "enable_thinking", "reasoning_effort"),
        ("chat/completions", {"temperature": None}, "temperature", None),
        ("chat/completions", {}, "options", None),
    ],
)
def test_the_input_at_fault_is_named_as_the_client_sent_it(
    gateway: Gateway, path: str, body: dict[str, Any], named: str, param: str | None
) -> None:
    gateway.ensemble.reply = lambda request: (400, f"INVALID_ARGUMENT [invalid_value {named}]: no")
    whole = (CHAT if path == "chat/completions" else COMPLETION) | body
    assert gateway.error(path, whole, 400)["param"] == param


def test_a_refusal_in_the_middle_of_an_answer_is_a_failure(gateway: Gateway) -> None:
    gateway.ensemble.reply = lambda request: [piece("Hel"), {"error": "INVALID_ARGUMENT [too_long prompt]: no"}]
    assert gateway.error("chat/completions", CHAT, 500)["code"] is None
    gateway.ensemble.reply = lambda request: answer("whole")
    assert gateway.chat()["choices"][0]["message"]["content"] == "whole"


def test_an_answer_that_its_own_grammar_breaks_off_is_the_requests_fault(gateway: Gateway) -> None:
    gateway.ensemble.reply = lambda request: [
        piece("Hel"),
        {"error": "INVALID_ARGUMENT [unsupported]: the grammar cannot go on"},
    ]
    assert gateway.error("chat/completions", CHAT, 400)["message"] == "the grammar cannot go on"


def text_searches(tree: ast.AST) -> Iterator[int]:
    """Lines that compare an error's words, or look for something in them."""
    searches = {
        "startswith",
        "endswith",
        "find",
        "index",
        "count",
        "search",
        "match",
        "fullmatch",
        "partition",
        "split",
        "findall",
    }
    for node in ast.walk(tree):
        is_search = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in searches
        if (is_search or isinstance(node, ast.Compare | ast.Match)) and any(map(is_words, ast.walk(node))):
            yield node.lineno  # type: ignore[attr-defined]


def is_words(node: ast.AST) -> bool:
    """`error.message`, `error.args`, `str(error)` and the like."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("str", "repr"):
        return any(isinstance(argument, ast.Name) and argument.id in ("error", "cause") for argument in node.args)
    return isinstance(node, ast.Attribute) and node.attr in ("message", "detail", "args")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_words_of_an_error_decide_anything(path: Path) -> None:
    assert not list(text_searches(ast.parse(path.read_text("utf-8"))))


@pytest.mark.parametrize(
    "line",
    [
        '"holds" in error.message',
        'error.message.startswith("tools")',
        're.search("n", str(error))',
        'str(error) == "no"',
        'error.args[0].find("x")',
    ],
)
def test_words_that_decide_are_noticed(line: str) -> None:
    assert list(text_searches(ast.parse(line)))
