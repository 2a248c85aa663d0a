"""Thinking through a whole engine and its outbox. Run: pytest tests/runtime/test_engine_thinking.py"""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from fakes.runtime import chunks_of, make_manifest, run_out
from triune_runtime.errors import RequestError
from triune_runtime.manifest import ReasoningMarkers
from triune_runtime.request import Chunk, Request, SamplingParams, join
from triune_runtime.starting import step_loop
from triune_runtime.targets.fake.runner import FakeRunner
from triune_runtime.text.vocabulary import TokenBytes

PIECES = [
    b"",
    b"<think>",
    b"</think>",
    b"\n",
    b"\n\n",
    b"</",
    b"think",
    b">",
    b"a",
    b"b",
    b" ab",
    "中".encode(),
    b"\xe4",
    b"x</think>\ny",
]
TABLE = TokenBytes(PIECES)
END, OPEN, CLOSE, BREAK, BREAKS, A = 0, 1, 2, 3, 4, 8
MARKERS = ReasoningMarkers(start="<think>", end="</think>", closing_ids=(BREAK, CLOSE, BREAKS))


def answer(request: Request, markers: ReasoningMarkers | None = MARKERS) -> list[Chunk]:
    """The chunks of a request that has an engine for itself; one end token, which comes now and then."""
    manifest = dataclasses.replace(make_manifest((END,), max_length=200), vocab_size=len(PIECES), reasoning=markers)
    engine = step_loop(manifest, FakeRunner(len(PIECES), (END,)), TABLE)
    engine.submit(request)
    return chunks_of(run_out(engine), request.key)


def parts(chunks: list[Chunk]) -> tuple[str, str]:
    thinking = text = ""
    for chunk in chunks:
        data = TABLE.join(chunk.cut.token_ids)
        begin, stop = chunk.cut.border or (chunk.cut.byte_start, chunk.cut.byte_start)
        thinking += data[chunk.cut.byte_start : begin].decode("utf-8", "replace")
        text += data[stop : chunk.cut.byte_stop].decode("utf-8", "replace")
    return thinking, text


def bare(text: str) -> str:
    return "".join(text.replace("<think>", "", 1).replace("</think>", "", 1).split())


def ask(number: int, *, bias: dict[int, float] | None = None, **changes: Any) -> Request:
    rng = random.Random(number)
    params = SamplingParams(
        max_tokens=changes.pop("max_tokens", rng.randint(1, 60)), temperature=rng.choice([0.0, 1.0]), seed=number,
        stop=tuple(rng.sample(["ab", "</think>", "\n\n", "aa"], rng.choice([0, 0, 1]))),
        thinking_budget=changes.pop("budget", rng.choice([None, None, 0, 1, 5])),
        logit_bias=tuple((bias or {}).items()), ignore_eos=changes.pop("ignore_eos", rng.random() < 0.5),
    )  # fmt: skip
    defaults = {"thinking_open": rng.random() < 0.5, "separate_reasoning": True, "stream": False}
    prompt = tuple(rng.randrange(len(PIECES)) for _ in range(5))
    return Request(key=1, prompt=prompt, params=params, **(defaults | changes))


@pytest.mark.parametrize("number", range(150))
def test_a_stream_is_the_whole_answer_and_keeping_thinking_apart_changes_no_token(number: int) -> None:
    request = ask(number)
    (whole,) = answer(request)
    stream = answer(dataclasses.replace(request, stream=True))
    (raw,) = answer(dataclasses.replace(request, separate_reasoning=False))
    assert parts(stream) == parts([whole])
    ends = [(one.finish_reason, one.cut.stop_reason, one.new_tokens) for one in (whole, raw)]
    assert ends[0] == ends[1]
    assert [sum(c.new_tokens for c in stream), sum(c.cut.reasoning_tokens for c in stream)] == [
        whole.new_tokens,
        whole.cut.reasoning_tokens,
    ]
    assert (raw.cut.border, raw.cut.reasoning_tokens) == (None, 0)
    assert all(c.cut.byte_stop > c.cut.byte_start for c in stream[:-1]), "a chunk without text"
    assert all(c.cut.border != (c.cut.byte_start, c.cut.byte_stop) for c in stream[:-1]), "a chunk with nothing but a marker"
    text = parts([raw])[1]
    assert bare("".join(parts([whole]))) == bare(text) or text.count("think>") > 1
    rng = random.Random(number)
    while len(stream) > 1:  # as the outbox does behind a slow reader
        at = rng.randrange(len(stream) - 1)
        stream[at : at + 2] = [join(stream[at], stream[at + 1])]
    assert parts(stream) == parts([whole])
    assert stream[0].cut.reasoning_tokens == whole.cut.reasoning_tokens


@pytest.mark.parametrize("budget", [0, 1, 5, 30])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_budget_closes_thinking_that_goes_on(budget: int, temperature: float) -> None:
    """Line breaks and the closing marker are banned, so nothing but the budget closes the thinking."""
    never = dict.fromkeys((CLOSE, OPEN, 5, 6, 7, 13, BREAK, BREAKS), -1000.0)
    request = ask(7, bias=never, budget=budget, max_tokens=50, ignore_eos=True, thinking_open=True)
    params = dataclasses.replace(request.params, temperature=temperature, stop=(), bad_words=((CLOSE,),))
    request = dataclasses.replace(request, params=params)
    (raw,) = answer(dataclasses.replace(request, separate_reasoning=False))
    thinking, _, text = TABLE.join(raw.cut.token_ids).partition(b"\n</think>\n\n")
    assert text and raw.cut.token_ids.count(CLOSE) == 1 and raw.new_tokens == 50
    (chunk,) = answer(request)
    assert parts([chunk]) == (thinking.decode("utf-8", "replace"), text.decode("utf-8", "replace"))
    silent = 50 - len(raw.cut.token_ids)  # end tokens that are ignored: they count, and have no text
    assert raw.cut.token_ids.index(CLOSE) - 1 == chunk.cut.reasoning_tokens
    assert budget - silent <= chunk.cut.reasoning_tokens <= budget


def test_thinking_that_never_closes_is_all_of_the_answer() -> None:
    only_a = {t: -1000.0 for t in range(len(PIECES)) if t != A}
    (chunk,) = answer(ask(1, bias=only_a, budget=None, max_tokens=9, thinking_open=True))
    assert parts([chunk]) == ("a" * 9, "")
    assert (chunk.finish_reason, chunk.cut.reasoning_tokens) == ("length", 9)


def test_a_stop_string_ends_the_answer_inside_its_thinking() -> None:
    only_ab = {t: -1000.0 for t in range(len(PIECES)) if t != 10}
    request = ask(1, bias=only_ab, budget=None, max_tokens=9, thinking_open=True)
    (chunk,) = answer(dataclasses.replace(request, params=dataclasses.replace(request.params, stop=("b a",))))
    assert parts([chunk]) == (" a", "")
    assert (chunk.finish_reason, chunk.cut.stop_reason) == ("stop", "b a")


def test_a_forced_token_s_log_probability_is_the_models_own() -> None:
    request = ask(3, budget=0, max_tokens=4, thinking_open=True, ignore_eos=True)
    (chunk,) = answer(dataclasses.replace(request, params=dataclasses.replace(request.params, logprobs=14, stop=())))
    assert [t.token_id for t in chunk.logprobs[:3]] == list(MARKERS.closing_ids)
    for entry in chunk.logprobs:
        assert dict(entry.top)[entry.token_id] == entry.logprob


def test_a_model_that_does_not_think_refuses_a_budget_and_keeps_nothing_apart() -> None:
    with pytest.raises(RequestError, match="this model does not think"):
        answer(ask(1, budget=4), None)
    (chunk,) = answer(ask(1, budget=None, max_tokens=9, ignore_eos=True), None)
    assert chunk.cut.border is None
