"""Whether an answer is right, whatever it says: whole, in order, consistent with itself and with its repeats."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from .answer import UNKNOWN, Answer
from .schema import misfit

CHECKS: dict[str, str] = {
    "order": "chunks come once each, in order; nothing after the end",
    "complete": "a stream ends as its protocol says, not in the middle",
    "utf8": "every event is UTF-8, no character is cut in two",
    "json": "events are JSON; answers held to a schema and arguments of tool calls are valid",
    "finish": "one finish reason, and it is the true one",
    "counts": "tokens of chunks, of the answer and of the prompt add up",
    "text": "greedy repeats get the same answer, streamed or not",
    "identity": "every chunk belongs to its own answer",
    "stall": "no silence is longer than the limit",
    "lost": "every request that was taken is answered to its end",
    "freed": "after the run the server holds no request, those that were left included",
}
_FINISHES = ("stop", "length", "tool_calls", "content_filter", "eos", "function_call")
_LOST = ("broken", "timeout", "not ended", "garbled")


@dataclass(frozen=True)
class Violation:
    """Something that must not be."""

    check: str  # a key of `CHECKS`
    message: str
    identity: str = ""  # of the request


@dataclass(frozen=True)
class Promises:
    """What every streamed answer of this server has, by one that was looked at before the load."""

    first_index: int | None = None  # of chunks, where they are numbered
    counted: bool = False  # the counts of tokens
    finished: bool = False  # a finish reason
    marked: bool = False  # an event that ends the stream
    echoed: bool = False  # the request's own id

    @classmethod
    def of(cls, answer: Answer, *, marked: bool) -> Promises:
        """What a good answer lets one expect of all others; `marked`: its protocol has an end mark."""
        counted = answer.output_tokens is not None or (len(answer.tokens) > 0 and UNKNOWN not in answer.tokens)
        return cls(
            first_index=answer.indices[0] if answer.indices else None,
            counted=counted,
            finished=answer.finish is not None,
            marked=marked,
            echoed=list(answer.identities) == [answer.request.identity],
        )


def check_answer(answer: Answer, promises: Promises, *, stall_s: float) -> Iterator[Violation]:
    """What is wrong with one answer. Of one that failed or was left, what came must still be in order."""
    name = answer.request.identity
    found = list(answer.malformed)
    found += _order(answer, promises) if answer.request.stream else []
    if answer.failure is None:
        found += _identity(answer, promises)
    if answer.whole:
        found += [*_complete(answer, promises), *_finish(answer, promises), *_counts(answer, promises), *_json(answer)]
    elif answer.failure is not None and answer.failure.kind in _LOST:
        found.append(("lost", f"{answer.failure.kind}: {answer.failure.message}"))
    if answer.longest_silence_s > stall_s:
        found.append(("stall", f"nothing came for {answer.longest_silence_s:.2f} s; the limit is {stall_s:g} s"))
    yield from (Violation(check, message, name) for check, message in found)


Found = Iterator[tuple[str, str]]


def _order(answer: Answer, promises: Promises) -> Found:
    if promises.first_index is not None:
        for place, index in enumerate(answer.indices, start=promises.first_index):
            if index != place:
                missing = "again" if index in answer.indices[: place - promises.first_index] else f"in place of {place}"
                yield "order", f"chunk {index} came {missing}"
                break
        if answer.whole and not answer.indices:
            yield "order", "its chunks have no numbers; others' have"
    if answer.after_end:
        yield "order", f"{answer.after_end} chunks came after the end"


def _identity(answer: Answer, promises: Promises) -> Found:
    if len(answer.identities) > 1:
        yield "identity", f"one stream has the ids {', '.join(answer.identities)}"
    elif promises.echoed and answer.identities and answer.request.identity not in answer.identities:
        yield "identity", f"the answer has the id {next(iter(answer.identities))}"


def _complete(answer: Answer, promises: Promises) -> Found:
    if promises.finished and answer.finish is None:
        yield "complete", f"it ended without a finish reason after {len(answer.times)} chunks"
    if promises.marked and answer.dones != 1:
        yield "complete", "the stream ended without its end mark" if not answer.dones else f"it ended {answer.dones} times"
    if not answer.times and answer.finish is None:
        yield "complete", "nothing came"


def _finish(answer: Answer, promises: Promises) -> Found:
    finish, request = answer.finish, answer.request
    if finish is None:
        return
    if answer.finishes > 1:
        yield "finish", f"it finished {answer.finishes} times"
    if finish not in _FINISHES:
        yield "finish", f"the finish reason is {finish!r}; known are {', '.join(_FINISHES)}"
    if finish == "length" and promises.counted and answer.token_count < request.max_tokens:
        yield "finish", f"the finish reason is length after {answer.token_count} of {request.max_tokens} tokens"
    if request.ignore_eos and finish != "length":
        yield "finish", f"the finish reason is {finish} though the end of the text was to be ignored"
    if finish == "tool_calls" and not answer.calls and request.tools and not answer.texts:
        yield "finish", "the finish reason is tool_calls and there is no call"


def _counts(answer: Answer, promises: Promises) -> Found:
    request = answer.request
    known = len(answer.tokens) > 0 and UNKNOWN not in answer.tokens
    if promises.counted and answer.output_tokens is None and not known:
        yield "counts", "it has no count of tokens; others have"
        return
    if answer.output_tokens is not None and known and sum(answer.tokens) != answer.output_tokens:
        yield "counts", f"the chunks have {sum(answer.tokens)} tokens and the answer {answer.output_tokens}"
    parts = (answer.input_tokens, answer.output_tokens)
    if answer.total_tokens is not None and None not in parts and sum(n or 0 for n in parts) != answer.total_tokens:
        yield "counts", f"{parts[0]} + {parts[1]} tokens are said to be {answer.total_tokens}"
    if promises.counted and answer.token_count > request.max_tokens:
        yield "counts", f"{answer.token_count} tokens came; {request.max_tokens} were asked for at most"
    if promises.counted and answer.token_count == 0 and (answer.texts or answer.thoughts):
        yield "counts", "there is text and no token"


def _json(answer: Answer) -> Found:
    if answer.finish == "length":
        return  # cut off: need not be whole
    if (schema := answer.request.schema) is not None:
        try:
            wrong = misfit(json.loads(answer.text), schema)
        except ValueError as error:
            wrong = f"the answer is not JSON ({error}): {answer.text[:120]!r}"
        if wrong:
            yield "json", wrong
    known = {tool["function"]["name"]: tool["function"].get("parameters", {}) for tool in answer.request.tools}
    for call in answer.calls.values():
        if call.name not in known:
            yield "json", f"a call is of {call.name!r}; there are {', '.join(known) or 'no tools'}"
            continue
        try:
            wrong = misfit(json.loads(call.arguments or "{}"), known[call.name], f"the call of {call.name}")
        except ValueError as error:
            wrong = f"the arguments of {call.name} are not JSON ({error}): {call.arguments[:120]!r}"
        if wrong:
            yield "json", wrong
