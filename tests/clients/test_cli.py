"""Run: pytest tests/clients/test_cli.py - the terminal program, without a terminal and with one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from triune_client import Client, Overloaded
from triune_client.__main__ import main
from triune_client._chat import Chat, _interruptible
from triune_client._terminal import PlainTerminal
from triune_client.testing import MockTransport, mock_server

CLIENTS = Path(__file__).parents[2] / "clients"


def chat(monkeypatch: pytest.MonkeyPatch, transport: MockTransport, *lines: str, system: str | None = None) -> Chat:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    conversation = Chat(Client(transport=transport, max_retries=0), PlainTerminal(), system=system)
    conversation.run()
    return conversation


def test_a_conversation_is_sent_whole(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    transport = MockTransport(["Par", "is"])
    chat(monkeypatch, transport, "capital?", "", "really?", system="be brief")
    sent = [json.loads(request["messages"]) for request in transport.requests]
    assert [turn["role"] for turn in sent[0]] == ["system", "user"]
    assert [turn["content"] for turn in sent[1]] == ["be brief", "capital?", "Paris", "really?"]
    out, err = capsys.readouterr()
    assert out == "Paris\nParis\n"
    assert "2 out" in err


def test_reset_and_system_start_over(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = MockTransport("ok")
    chat(monkeypatch, transport, "one", "/reset", "two", "/system new rules", "three", "/system", "four")
    sent = [[turn["content"] for turn in json.loads(request["messages"])] for request in transport.requests]
    assert sent == [["one"], ["two"], ["new rules", "three"], ["four"]]


def test_commands_are_not_sent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    transport = MockTransport("ok")
    chat(monkeypatch, transport, "/help", "/nonsense")
    assert transport.requests == []
    assert "no command /nonsense" in capsys.readouterr().err


def test_a_failed_turn_is_forgotten_and_the_chat_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replies = iter([Overloaded("queue is full", status=503), "ok"])
    transport = MockTransport(lambda request: next(replies))
    conversation = chat(monkeypatch, transport, "one", "two")
    assert [turn["content"] for turn in conversation.messages] == ["two", "ok"]
    assert "queue is full" in capsys.readouterr().err


def test_complete_prints_the_text_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    with mock_server(["Grü", "ße\n"]) as server:
        assert main(["complete", "--url", server.url, "--max-tokens", "4", "--temperature", "0", "hi"]) == 0
        assert (server.requests[0]["max_tokens"], server.requests[0]["temperature"]) == (4, 0.0)
    assert capsys.readouterr() == ("Grüße\n", "")


def test_complete_reads_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe"))
    with mock_server("ok") as server:
        assert main(["complete", "--url", server.url]) == 0
        assert server.requests[0]["text_input"] == "from a pipe"


@pytest.mark.parametrize("command", [["chat"], ["complete", "hi"], ["chat", "--grpc"]])
def test_no_server_is_one_clear_sentence(command: list[str], capsys: pytest.CaptureFixture[str], no_pause: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
    url = address if "--grpc" in command else f"http://{address}"
    assert main([*command, "--url", url]) == 3
    error = capsys.readouterr().err
    assert error == f"error: nothing answers at {url}: start it with `make up`, or name another server with --url\n"


@pytest.mark.parametrize("wrong", [["--url", "nonsense"], ["--temperature", "nan"], ["--max-tokens", "9999999999"]])
def test_wrong_arguments_exit_with_two(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["complete", "hi", *wrong])
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_an_unknown_model_exits_with_one(capsys: pytest.CaptureFixture[str]) -> None:
    with mock_server("ok") as server:
        assert main(["complete", "--url", server.url, "--model", "absent", "hi"]) == 1
    assert "absent" in capsys.readouterr().err


class Typist:
    """A terminal with someone at it."""

    def __init__(self, *arguments: str) -> None:
        self.shown = b""
        self._master, slave = pty.openpty()
        environment = {**os.environ, "PYTHONPATH": str(CLIENTS), "TERM": "xterm", "NO_COLOR": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "triune_client", *arguments],
            stdin=slave, stdout=slave, stderr=slave, env=environment, close_fds=True, start_new_session=True,
            preexec_fn=lambda: _own_terminal(slave),
        )  # fmt: skip
        os.close(slave)

    def wait_for(self, text: bytes) -> None:
        """Reads until `text` is shown after what was waited for before."""
        give_up = time.monotonic() + 15
        while text not in self.shown:
            assert time.monotonic() < give_up, f"{text!r} was not shown; shown: {self.shown!r}"
            if select.select([self._master], [], [], 0.1)[0]:
                self.shown += os.read(self._master, 4096)
        self.shown = self.shown.partition(text)[2]

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def leave_with(self, keys: bytes) -> int:
        """Types the keys until the program ends: one pressed while Python enters `input` is seen at the next only."""
        for _ in range(20):
            self.type(keys)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(0.5)
        raise AssertionError(f"the program does not end; shown: {self.shown!r}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


def _own_terminal(slave: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)  # ctrl-C on this terminal reaches this process
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell lets what it runs in the background, these tests say, ignore it


def test_ctrl_c_cancels_the_answer_and_at_the_prompt_leaves() -> None:
    with mock_server(["word "] * 2000, delay_s=0.02) as server:
        typist = Typist("chat", "--url", server.url)
        try:
            typist.wait_for(b"> ")
            typist.type(b"tell me\r")
            typist.wait_for(b"word word")
            typist.type(b"\x03")
            typist.wait_for(b"cancelled")
            typist.wait_for(b"> ")
            typist.type(b"again\r")
            typist.wait_for(b"word word")
            typist.type(b"\x03")
            typist.wait_for(b"> ")
            assert typist.leave_with(b"\x03") == 0
        finally:
            typist.close()
        assert server.cancelled == [request["id"] for request in server.requests]
        kept = json.loads(server.requests[1]["messages"])
        assert [turn["role"] for turn in kept] == ["user", "assistant", "user"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_ctrl_c_that_the_interpreter_lost_is_raised_at_the_next_piece() -> None:
    class Loses:
        """Its destructor is where the signal arrives: exceptions raised there are dropped."""

        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    pieces = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _interruptible() as check:
            for _ in range(5):
                check()
                pieces += 1
                lost = Loses()
                del lost
    assert pieces == 1
