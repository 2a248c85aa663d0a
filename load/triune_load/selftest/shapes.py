"""Events and whole answers of the pretended server, in every protocol over HTTP. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .words import answer_tokens, count_tokens

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """A request, understood."""

    protocol: str
    identity: str
    prompt: str
    tokens: int
    stream: bool


@dataclass(frozen=True)
class Script:
    """What is sent: bodies of events in their order, each with the token that it brings; and the end."""

    before: Sequence[str]  # at once with the first token
    chunks: Sequence[str]  # one for each token
    after: Sequence[str]  # at once with the last


def understand(path: str, body: Json, number: int) -> Asked | None:
    """The request at a path, None if nothing is served there."""
    if path.startswith("/v1/"):
        protocol = {"/v1/chat/completions": "chat", "/v1/completions": "completions", "/v1/responses": "responses"}.get(path)
        if protocol is None:
            return None
        said = body.get("messages") or body.get("input") or [{"content": body.get("prompt", "")}]
        prompt = "\n".join(str(m["content"]) for m in said)
        tokens = body.get("max_tokens") or body.get("max_output_tokens") or 16
        return Asked(protocol, f"{protocol}-{number}", prompt, int(tokens), bool(body.get("stream")))
    verb = path.rpartition("/")[2]
    if not path.startswith("/v2/models/") or verb not in ("generate", "generate_stream", "infer"):
        return None
    fields = {i["name"]: i["data"][0] for i in body["inputs"]} if verb == "infer" else body
    prompt = str(fields.get("text_input") or fields.get("messages") or "")
    return Asked(verb, str(body.get("id", number)), prompt, int(fields.get("max_tokens", 16)), verb == "generate_stream")


def script(asked: Asked) -> Script:
    """The events of a stream."""
    texts, words = answer_tokens(asked.prompt, asked.tokens), count_tokens(asked.prompt)
    if asked.protocol == "generate_stream":
        last = len(texts) - 1
        return Script((), [_triton(asked, n, t, words if n == 0 else 0, 1, n == last) for n, t in enumerate(texts)], ())
    if asked.protocol == "responses":
        return _responses(asked, texts, words)
    chat = asked.protocol == "chat"
    ids = {"id": asked.identity, "object": "chat.completion.chunk" if chat else "text_completion", "model": "fake"}

    def event(content: str | None, finish: str | None) -> str:
        said: Json = {"delta": {} if content is None else {"content": content}} if chat else {"text": content or ""}
        return _json(ids | {"choices": [{"index": 0, "finish_reason": finish, **said}]})

    before = [_json(ids | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})] if chat else []
    return Script(
        before, [event(t, None) for t in texts], [event(None, "length"), _json(ids | _usage(words, len(texts))), "[DONE]"]
    )


def whole(asked: Asked) -> str:
    """The body of an answer that is not streamed."""
    texts, words = answer_tokens(asked.prompt, asked.tokens), count_tokens(asked.prompt)
    text = "".join(texts)
    if asked.protocol == "generate":
        return _triton(asked, 0, text, words, len(texts), True)
    if asked.protocol == "infer":
        outputs = json.loads(_triton(asked, 0, text, words, len(texts), True))
        named = ("text_output", "finish_reason", "num_input_tokens", "num_output_tokens", "chunk_index")
        return _json(
            {"id": asked.identity, "outputs": [{"name": n, "datatype": "", "shape": [1], "data": [outputs[n]]} for n in named]}
        )
    if asked.protocol == "responses":
        return _json(_response(asked, text, words, len(texts)))
    said: Json = {"message": {"role": "assistant", "content": text}} if asked.protocol == "chat" else {"text": text}
    choice = {"index": 0, "finish_reason": "length", **said}
    return _json(
        {"id": asked.identity, "object": "chat.completion" if asked.protocol == "chat" else "text_completion"}
        | _usage(words, len(texts))
        | {"choices": [choice]}
    )


def _triton(asked: Asked, index: int, text: str, input_tokens: int, output_tokens: int, last: bool) -> str:
    return _json({
        "id": asked.identity, "model_name": "triune", "text_output": text, "chunk_index": index,
        "num_input_tokens": input_tokens, "num_output_tokens": output_tokens, "finish_reason": "length" if last else "",
        "arrival_time_ns": 1000, "first_scheduled_time_ns": 2000,
    })  # fmt: skip


def _responses(asked: Asked, texts: Sequence[str], words: int) -> Script:
    response = _response(asked, "".join(texts), words, len(texts))
    created: Json = {"type": "response.created", "response": {"id": asked.identity, "status": "in_progress"}}
    deltas: list[Json] = [{"type": "response.output_text.delta", "output_index": 0, "delta": text} for text in texts]
    events: list[Json] = [created, *deltas, {"type": "response.incomplete", "response": response}]
    told = [_json({**event, "sequence_number": n}) for n, event in enumerate(events)]
    return Script(told[:1], told[1:-1], told[-1:])


def _response(asked: Asked, text: str, words: int, tokens: int) -> dict[str, Any]:
    return {
        "id": asked.identity, "object": "response", "status": "incomplete",
        "incomplete_details": {"reason": "max_output_tokens"},
        "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}],
        "usage": {"input_tokens": words, "output_tokens": tokens, "total_tokens": words + tokens},
    }  # fmt: skip


def _usage(words: int, tokens: int) -> dict[str, Any]:
    usage = {"prompt_tokens": words, "completion_tokens": tokens, "total_tokens": words + tokens}
    return {"choices": [], "usage": usage}


def _json(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)
