"""Clients that know what the answer must be: each asks over one protocol and says what became of it, within a bound."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from triune_client import ConnectError, Overloaded, StatusError, StreamBroken, TimeoutError_
from triune_client import TriuneError as ClientError
from triune_client.grpc import GrpcClient

ANSWERED, REFUSED, ERROR, CUT, HUNG, WRONG = "answered", "refused", "error", "cut", "hung", "wrong"
GENERATE, STREAM, GRPC, CHAT = "generate", "generate_stream", "grpc", "chat"
PROTOCOLS = (GENERATE, STREAM, GRPC, CHAT)
PATIENCE_S = 45.0  # of a client: silence for longer, or an answer that takes twice as long, is a hang (a watchdog has 30)
_FULL = ("[overloaded", "[stopping", "UNAVAILABLE")  # in the text of an error, where its status cannot say it


@dataclass(frozen=True)
class Question:
    """What is asked: greedy, of a fixed length, so that there is one right answer."""

    prompt: str
    tokens: int

    def tensors(self) -> dict[str, Any]:
        return {"text_input": self.prompt, "max_tokens": self.tokens, "ignore_eos": True, "temperature": 0.0}

    def chat(self) -> dict[str, Any]:
        said = [{"role": "user", "content": self.prompt}]
        return {"model": "triune", "messages": said, "max_tokens": self.tokens, "ignore_eos": True, "temperature": 0}


QUESTIONS = tuple(
    Question(f"What is {7 + 31 * n} {'+-*'[n % 3]} {11 + 13 * n}?", tokens)
    for n, tokens in enumerate((6, 12, 24, 40, 60, 90, 16, 32))
)


@dataclass(frozen=True)
class Addresses:
    """Where a server listens."""

    http: str
    grpc: str
    openai: str
    metrics: str


@dataclass(frozen=True)
class Outcome:
    """What became of one request.

    Attributes:
        detail: of an error, what was said; of a wrong answer, both texts.
        seconds: it took.
    """

    kind: str
    protocol: str
    detail: str = ""
    seconds: float = 0.0


class Wrong(Exception):
    """An answer that cannot be right, whatever its text is."""


class Refused(Exception):
    """A request that was not taken, said in so many words."""


Texts = Mapping[tuple[str, Question], str]  # by protocol: CHAT has a template, the others share one text


def right_texts(where: Addresses, questions: tuple[Question, ...] = QUESTIONS) -> dict[tuple[str, Question], str]:
    """What a server answers when nothing disturbs it, asked without a stream, one by one."""
    found: dict[tuple[str, Question], str] = {}
    for question in questions:
        plain = post(f"{where.http}/v2/models/triune/generate", question.tensors(), 60.0)
        chat = post(f"{where.openai}/v1/chat/completions", question.chat(), 60.0)
        text = str(plain.raise_for_status().json()["text_output"])
        found |= {(protocol, question): text for protocol in (GENERATE, STREAM, GRPC)}
        found[CHAT, question] = _text_of(chat.raise_for_status().json()["choices"][0]["message"])
    return found


def ask(where: Addresses, protocol: str, question: Question, texts: Texts, patience_s: float = PATIENCE_S) -> Outcome:
    """Ask once; never raises, and never takes longer than twice the patience."""
    began = time.monotonic()
    right = texts[protocol, question]
    got = ""

    def told(kind: str, detail: str = "") -> Outcome:
        return Outcome(kind, protocol, detail[:300], round(time.monotonic() - began, 3))

    try:
        for piece in _ASK[protocol](where, question, patience_s):
            got += piece
            if not right.startswith(got):
                return told(WRONG, f"{got!r}, where {right!r} is right")
            if time.monotonic() - began > 2 * patience_s:
                return told(HUNG, f"no end after {2 * patience_s:.0f} s")
    except (httpx.ConnectError, httpx.ConnectTimeout, ConnectError, Overloaded, Refused) as error:
        return told(ERROR if got else REFUSED, str(error))
    except (httpx.TimeoutException, TimeoutError_) as error:
        return told(HUNG, f"silence: {error}")
    except Wrong as error:
        return told(WRONG, str(error))
    except StreamBroken as error:
        return told(CUT, str(error))
    except (httpx.HTTPStatusError, StatusError, ClientError) as error:
        return told(REFUSED if not got and any(word in str(error) for word in _FULL) else ERROR, str(error))
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:  # ended in the middle of a line, perhaps
        return told(CUT, repr(error))
    return told(ANSWERED) if got == right else told(WRONG, f"ended as if whole with {got!r}, where {right!r} is right")


def _generate(where: Addresses, question: Question, patience_s: float) -> Iterator[str]:
    reply = post(f"{where.http}/v2/models/triune/generate", question.tensors(), patience_s)
    _check_status(reply.status_code, reply.text)
    answer = reply.json()
    if answer.get("finish_reason") == "cancelled":
        raise httpx.RemoteProtocolError("the server has cancelled it")
    if answer.get("finish_reason") not in ("stop", "length"):
        raise Wrong(f"a whole answer ends with {answer.get('finish_reason')!r}")
    yield str(answer["text_output"])


def _stream(where: Addresses, question: Question, patience_s: float) -> Iterator[str]:
    url = f"{where.http}/v2/models/triune/generate_stream"
    ended = False
    for event in events(url, question.tensors() | {"stream": True}, patience_s):
        if event.get("error"):
            _check_status(0, str(event["error"]))
        ended = event.get("finish_reason") in ("stop", "length")
        if event.get("finish_reason") == "cancelled":
            raise httpx.RemoteProtocolError("the server has cancelled it")
        yield str(event["text_output"])
    if not ended:
        raise httpx.RemoteProtocolError("the stream ended before its finish reason")


def _chat(where: Addresses, question: Question, patience_s: float) -> Iterator[str]:
    ended = False
    for event in events(f"{where.openai}/v1/chat/completions", question.chat() | {"stream": True}, patience_s):
        if event.get("error"):
            _check_status(0, json.dumps(event["error"]))
        for choice in event.get("choices", ()):
            ended = ended or choice.get("finish_reason") in ("stop", "length")
            yield _text_of(choice["delta"])
    if not ended:
        raise httpx.RemoteProtocolError("the stream ended before its finish reason")


def _grpc(where: Addresses, question: Question, patience_s: float) -> Iterator[str]:
    ended = False
    with (
        GrpcClient(where.grpc, timeout_s=patience_s, max_retries=0) as client,
        client.stream(question.prompt, max_tokens=question.tokens, ignore_eos=True, temperature=0.0) as got,
    ):
        for chunk in got:
            ended = str(chunk.finish_reason) in ("stop", "length")
            yield chunk.text
    if not ended:
        raise StreamBroken("the stream ended before its finish reason")


_ASK: Mapping[str, Callable[[Addresses, Question, float], Iterator[str]]] = {
    GENERATE: _generate, STREAM: _stream, GRPC: _grpc, CHAT: _chat,
}  # fmt: skip


def post(url: str, body: Mapping[str, Any], patience_s: float) -> httpx.Response:
    """The answer to a JSON body. No certificates are read, which would take longer than the answer."""
    return httpx.post(url, json=body, timeout=httpx.Timeout(patience_s, connect=5), trust_env=False, verify=False)


def events(url: str, body: Mapping[str, Any], patience_s: float) -> Iterator[dict[str, Any]]:
    """The server-sent events of an answer, as JSON.

    Raises:
        Refused, httpx.HTTPError: there is no answer, or it breaks off.
    """
    timeout = httpx.Timeout(patience_s, connect=5)
    with httpx.stream("POST", url, json=body, timeout=timeout, trust_env=False, verify=False) as reply:
        if reply.status_code != 200:
            _check_status(reply.status_code, reply.read().decode("utf-8", "replace"))
        for line in reply.iter_lines():
            if line.startswith("data:") and line[5:].strip() != "[DONE]":
                yield json.loads(line[5:])


def _check_status(status: int, text: str) -> None:
    if status in (429, 503) or (status != 200 and any(word in text for word in _FULL)):
        raise Refused(f"{status}: {text[:200]}")
    if status != 200:
        raise ClientError(f"{status}: {text[:200]}")


def _text_of(message: Mapping[str, Any]) -> str:
    return f"{message.get('reasoning_content') or ''}{message.get('content') or ''}"
