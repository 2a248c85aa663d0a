"""Thinking through the clients, HTTP and gRPC, sync and async. Run: pytest tests/clients/test_reasoning.py"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from triune_client import AsyncClient, Chunk, Client, Completion
from triune_client._chat import Chat
from triune_client._terminal import PlainTerminal
from triune_client.grpc import AsyncGrpcClient, GrpcClient
from triune_client.testing import MockTransport, mock_server

PIECES = [
    Chunk(text="", reasoning="2 and "),
    Chunk(text="", reasoning="2"),
    Chunk(text="It is", reasoning=" is 4"),
    Chunk(text=" 4."),
]
SEEN = [("2 and ", ""), ("2", ""), (" is 4", ""), ("", "It is"), ("", " 4.")]


def check(chunks: list[Chunk], completion: Completion) -> None:
    assert [(c.reasoning, c.text) for c in chunks] == SEEN
    assert [c.is_reasoning for c in chunks] == [True, True, True, False, False]
    assert [c.finish_reason for c in chunks] == [None, None, None, None, "stop"]
    assert (completion.reasoning, completion.text, str(completion)) == ("2 and 2 is 4", "It is 4.", "It is 4.")
    assert completion.usage.reasoning_tokens == 3
    assert completion.usage.output_tokens == sum(c.usage.output_tokens for c in chunks) == 4
    assert sum(c.usage.reasoning_tokens for c in chunks) == 3


def read(client: Client | GrpcClient) -> tuple[list[Chunk], Completion]:
    with client, client.stream_chat("2 + 2?", enable_thinking=True, thinking_budget=50) as stream:
        chunks = list(stream)
        assert stream.reasoning == "2 and 2 is 4"
    return chunks, stream.completion


async def read_async(kind: Callable[..., Any], *where: Any, **how: Any) -> tuple[list[Chunk], Completion]:
    async with kind(*where, **how) as client, client.stream_chat("2 + 2?", enable_thinking=True, thinking_budget=50) as stream:
        chunks = [chunk async for chunk in stream]
        assert stream.reasoning == "2 and 2 is 4"
    return chunks, stream.completion


@pytest.mark.parametrize("asynchronous", [False, True])
def test_thinking_arrives_over_http(asynchronous: bool) -> None:
    transport = MockTransport(PIECES)
    if asynchronous:
        check(*asyncio.run(read_async(AsyncClient, transport=transport)))
    else:
        check(*read(Client(transport=transport)))
    assert (transport.requests[0]["enable_thinking"], transport.requests[0]["thinking_budget"]) == (True, 50)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_thinking_arrives_over_grpc(asynchronous: bool, grpc_server: Any) -> None:
    grpc_server.scripts = [[
        grpc_server.chunk("", reasoning_output="2 and ", num_reasoning_tokens=1, num_output_tokens=1),
        grpc_server.chunk("", reasoning_output="2", num_reasoning_tokens=1, num_output_tokens=1),
        grpc_server.chunk("It is", reasoning_output=" is 4", num_reasoning_tokens=1, num_output_tokens=1),
        grpc_server.chunk(" 4.", "stop", reasoning_output="", num_reasoning_tokens=0, num_output_tokens=1),
        grpc_server.answer(),
    ]]  # fmt: skip
    url = grpc_server.url
    check(*(asyncio.run(read_async(AsyncGrpcClient, url)) if asynchronous else read(GrpcClient(url))))
    assert (grpc_server.requests[0]["enable_thinking"], grpc_server.requests[0]["thinking_budget"]) == ([True], [50])


def test_options_of_thinking_are_checked_and_sent_only_when_given() -> None:
    transport = MockTransport("ok")
    with Client(transport=transport) as client:
        client.generate("hi", separate_reasoning=True)
        client.chat("hi")
        for wrong in ({"enable_thinking": 1}, {"thinking_budget": 1.5}, {"thinking_budget": True}):
            with pytest.raises(TypeError):
                client.chat("hi", **wrong)  # type: ignore[arg-type]  # the point of the test
    assert transport.requests[0]["separate_reasoning"] is True
    assert not {"enable_thinking", "thinking_budget", "separate_reasoning"} & transport.requests[1].keys()


def test_an_answer_that_thinks_to_its_end_has_no_text() -> None:
    with Client(transport=MockTransport([Chunk(text="", reasoning="hm")])) as client:
        answer = client.chat("hi")
    assert (answer.text, answer.reasoning) == ("", "hm")


def talk(monkeypatch: pytest.MonkeyPatch, transport: MockTransport, *lines: str) -> Chat:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    conversation = Chat(Client(transport=transport, max_retries=0), PlainTerminal())
    conversation.run()
    return conversation


def test_the_terminal_shows_thinking_beside_the_answer_and_counts_both(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    conversation = talk(monkeypatch, MockTransport(PIECES), "2 + 2?")
    shown = capsys.readouterr()
    assert shown.out == "It is 4.\n"
    assert "2 and 2 is 4\n\n" in shown.err
    assert "4 out, 3 of them thinking" in shown.err
    assert conversation.messages[1] == {"role": "assistant", "content": "It is 4.", "reasoning_content": "2 and 2 is 4"}


def test_think_switches_thinking_and_bounds_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    transport = MockTransport("ok")
    lines = ("a", "/think off", "b", "/think on", "/think 64", "c", "/think auto", "d", "/think perhaps", "/think", "e")
    talk(monkeypatch, transport, *lines)
    sent = [(r.get("enable_thinking"), r.get("thinking_budget")) for r in transport.requests]
    assert sent == [(None, None), (False, None), (True, 64), (None, None), (None, None)]
    shown = capsys.readouterr().err
    assert "thinking is off" in shown and "at most 64 tokens" in shown
    assert shown.count("on, off, auto or a number of tokens is expected") == 2


def test_rich_shows_thinking_dim(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    from rich.console import Console

    from triune_client._rich_terminal import RichTerminal

    terminal, shown = RichTerminal(), io.StringIO()
    monkeypatch.setattr(
        terminal, "_console", Console(file=shown, force_terminal=True, color_system="standard", highlight=False)
    )
    terminal.thought("hm [b]")
    terminal.piece("yes")
    assert shown.getvalue() == "\x1b[2;3mhm [b]\x1b[0myes"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [([], (None, None)), (["--no-think"], (False, None)), (["--think", "--thinking-budget", "9"], (True, 9))],
)
def test_the_command_line_has_switches_for_it(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: tuple[Any, Any]
) -> None:
    from triune_client.__main__ import main

    monkeypatch.setattr("sys.stdin", io.StringIO("hi\n"))
    with mock_server("ok") as server:
        assert main(["chat", "--url", server.url, *arguments]) == 0
        (sent,) = server.requests
    assert (sent.get("enable_thinking"), sent.get("thinking_budget")) == expected
    assert json.loads(sent["messages"])[0]["content"] == "hi"
