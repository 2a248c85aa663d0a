"""The trial of a tokenizer and chat templates, in a process of its own: a job on standard input, findings on standard output.

A library that comes upon too little memory may end the process; that is why it has one of its own.
"""

from __future__ import annotations

import json
import random
import re
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from triune_runtime.errors import ManifestError, RequestError, TriuneError
from triune_runtime.text.chat import ChatTemplate, Message
from triune_runtime.text.cutter import TextCutter, render
from triune_runtime.text.renderer import TemplateFailed
from triune_runtime.text.tokenizer import TextTokenizer
from triune_runtime.text.tools import ToolUse, read_tools
from triune_runtime.text.vocabulary import TokenBytes

from .errors import BuildError

# What the whole trial may take, and how much more of it for each byte of the job: of it a tokenizer of 262,144 tokens, 10 MB,
# takes 5 s and 350 MB.
_SECONDS, _MOST_SECONDS, _SECONDS_A_BYTE = 5, 60, 1e-6
_MEMORY, _MEMORY_A_BYTE = 256 << 20, 40
_DECODED = 1 << 13  # texts at a time
_SAMPLES = ("Hello, world", "The capital of France is Paris.\n\n1 + 1 = 2", " \t\n", "世界 😀 é", "def f(x):\n    return x",
            "a" * 2000 + "!", "1 " * 1000)  # fmt: skip  # the last for patterns that try all ways through a text
_MOST_TOKENS = 64  # of one byte of a text
_ANSWERS, _LENGTH = 200, 12  # made of random tokens
_FETCH = "fetch the file again; if it is as published, take another model"
_TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}}


def trial(job: dict[str, Any]) -> None:
    """Try all that a job names.

    Raises:
        TriuneError: what could not be served.
    """
    try_tokenizer(job)
    try_templates(job)


def try_tokenizer(job: dict[str, Any]) -> None:
    """The part of `trial` that of the templates asks only how calls of tools are written."""
    tokenizer = _tokenizer(job["tokenizer"])
    table = TextTokenizer(tokenizer, job["vocab_size"], None, job["chat_template"]).token_bytes()
    _try_encoding(tokenizer)
    _try_decoding(tokenizer, table)


def try_templates(job: dict[str, Any]) -> None:
    """The part of `trial` that reads no tokenizer."""
    if job["chat_template"] is not None:
        _try_templates(job["chat_template"], job["special_tokens"], job["tool_template"])


def _tokenizer(source: str) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(source)
    except Exception as error:  # the library raises nothing narrower
        raise BuildError(f"tokenizer.json cannot be read: {_line(error)}", _FETCH) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _try_encoding(tokenizer: Tokenizer) -> None:
    """Some text must become tokens, and none very many."""
    total = 0
    for sample in _SAMPLES:
        try:
            count = len(tokenizer.encode(sample).ids)
        except Exception as error:
            raise BuildError(f"the tokenizer cannot encode {sample!r}: {_line(error)}", _FETCH) from error
        if count > _MOST_TOKENS * len(sample.encode()):
            raise BuildError(f"the tokenizer makes {count:,} tokens of the {len(sample)} letters of {sample!r}", _FETCH)
        total += count
    if not total:
        raise BuildError(f"the tokenizer makes no token of usual texts, such as {_SAMPLES[0]!r}", _FETCH)


def _try_decoding(tokenizer: Tokenizer, table: TokenBytes) -> None:
    """The text of tokens, alone and beside others, must be what the library decodes them to."""
    special = {token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    ids = sorted(token for token in tokenizer.get_vocab(with_added_tokens=True).values() if token not in special)
    letters = next((token for token in ids if table[token].isalpha() and table[token].isascii()), None)
    beside = [] if letters is None else [*([letters, token] for token in ids), *([token, letters] for token in ids)]
    few = [[token] for token in ids] + beside
    chance = random.Random(0)
    single = sorted(table.single)
    many = [
        [chance.choice(single if single and chance.random() < 0.3 else ids) for _ in range(_LENGTH)]
        for _ in range(_ANSWERS if ids else 0)
    ]
    for start in range(0, len(few), _DECODED):
        some = few[start : start + _DECODED]
        _compare(tokenizer, some, (table.text(answer, table.dropped(answer)) for answer in some))
    _compare(tokenizer, many, (_streamed(table, answer) for answer in many))


def _compare(tokenizer: Tokenizer, answers: list[list[int]], found: Iterator[str]) -> None:
    for answer, expected, text in zip(answers, tokenizer.decode_batch(answers), found, strict=True):
        if text != expected:
            names = ", ".join(repr(tokenizer.id_to_token(token)) for token in answer)
            raise BuildError(
                f"the tokenizer cannot be served exactly: the text of the tokens {names[:200]} is {expected[:100]!r}, but put "
                f"together piece by piece it is {text[:100]!r}",
                "take a model with another tokenizer",
            )


def _streamed(table: TokenBytes, answer: list[int]) -> str:
    cutter = TextCutter(table)
    cuts = [*(cutter.push(token) for token in answer), cutter.finish()]
    return "".join(render(cut.token_ids, cut.byte_start, cut.byte_stop, table) for cut in cuts if cut)


def _try_templates(source: str, special_tokens: dict[str, str], tool_source: str | None) -> None:
    """They must compile, take a chat no longer than it may, and render at least one of the usual ones."""
    template = ChatTemplate(source, special_tokens, tool_source)
    refusals: list[RequestError] = []
    rendered = 0
    for messages, tools, thinking in _chats():
        try:
            rendered += bool(template.render(messages, tools=tools, thinking=thinking).strip())
        except RequestError as error:
            if error.code == "too_large":
                raise BuildError(str(error.args[0]), "take the model's newest template") from error
            refusals.append(error)
    if not rendered:
        why = "its text is empty"
        if refusals:
            said = str(refusals[0].args[0]).removeprefix("the model's chat template refuses these messages: ")
            cause = refusals[0].__cause__
            line = cause.line if isinstance(cause, TemplateFailed) else None
            why = said if line is None else f"line {line}: {said}"
        raise BuildError(
            f"the chat template renders none of {len(list(_chats()))} usual chats: {why}",
            "correct the template, or take the model's newest one",
        )


def _chats() -> Iterator[tuple[list[Message], ToolUse | None, bool | None]]:
    user, other = {"role": "user", "content": "Hi"}, {"role": "user", "content": "And now?"}
    system, answer = {"role": "system", "content": "Be brief."}, {"role": "assistant", "content": "Hello."}
    thought = answer | {"reasoning_content": "They greet me."}
    call = {"id": "call00001", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    called = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    result = {"role": "tool", "name": "f", "tool_call_id": "call00001", "content": "1"}
    tools = read_tools(json.dumps([_TOOL]), None, None)
    for messages in ([user], [system, user], [user, answer, other], [system, user, answer, other], [user, thought, other]):
        yield messages, None, None
    for thinking in (True, False):
        yield [user], None, thinking
    with_tools: list[list[Message]] = [[user], [system, user], [user, *called, result], [user, *called, result, answer, other]]
    for messages in with_tools:
        yield messages, tools, None
    yield [user, *called, result], None, None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def bound(size: int) -> None:
    """Bound what this process may take from now on, for a job of `size` bytes."""
    held = int(re.findall(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[0]) << 10
    memory = held + _MEMORY + _MEMORY_A_BYTE * size
    seconds = int(min(_SECONDS + _SECONDS_A_BYTE * size, _MOST_SECONDS))
    for kind, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0), (resource.RLIMIT_CPU, seconds, seconds + 5), (resource.RLIMIT_DATA, memory, memory),
    ):  # fmt: skip
        most = resource.getrlimit(kind)[1]
        inside = [value if most == resource.RLIM_INFINITY else min(value, most) for value in (soft, hard)]
        resource.setrlimit(kind, (inside[0], inside[1]))


def findings(job: dict[str, Any], part: Callable[[dict[str, Any]], None] = trial) -> dict[str, str]:
    """What is wrong with what the job names, or a part of it: a message and a hint, or nothing."""
    try:
        part(job)
    except (BuildError, ManifestError, RequestError) as error:
        return _said(error)
    except MemoryError:
        return {"message": "the tokenizer or the chat template takes too much memory", "hint": _FETCH}
    except BaseException as error:  # the library's panics among them
        return {"message": f"the tokenizer or the chat template cannot be tried: {_line(error)}", "hint": _FETCH}
    return {}


def main() -> None:
    raw = sys.stdin.buffer.read()
    bound(len(raw))
    print("\n" + json.dumps(findings(json.loads(raw))))


def _said(error: TriuneError) -> dict[str, str]:
    return {"message": str(error.args[0]), "hint": error.hint or _FETCH}


if __name__ == "__main__":
    main()
