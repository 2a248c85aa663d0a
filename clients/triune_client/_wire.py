"""The server's contract: calls to JSON or tensors, events and tensors to chunks and errors. No sockets, no clock.

Shared by the HTTP and the gRPC clients; NumPy is not needed for tensors this small.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, get_args

from . import _structured
from ._declared import LISTS, SCALARS, TENSORS
from ._errors import Overloaded, ServerError, StreamBroken, TriuneError, class_of_http, from_message
from ._options import Message, Settings
from ._types import Chunk, FinishReason, ModelInfo, Tokens, Usage

_FINISH_REASONS = frozenset(get_args(FinishReason))
_STRUCT = {"INT32": "i", "UINT32": "I", "INT64": "q", "UINT64": "Q", "FP32": "f", "BOOL": "?"}


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, complete: what to answer, how, and under which id."""

    request_id: str
    settings: Settings
    prompt: str | Sequence[int] | None = None  # raw completion, of a text or of token ids; or else
    messages: Sequence[Message] | None = None  # a conversation, for the model's own template


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """A one-dimensional input. `is_list` ones may hold any number of values, the others hold one."""

    name: str
    datatype: str  # Triton's names; strings are BYTES
    values: list[Any]
    is_list: bool = False


def encode_call(call: Call, *, deadline_s: float | None) -> list[Tensor]:
    """The inputs of a call; `deadline_s` is what is left of its deadline in seconds. Answers are always streamed."""
    if call.messages is not None:
        tensors = [_scalar("messages", "BYTES", json.dumps(list(call.messages), ensure_ascii=False))]
    else:
        tensors = [encode_prompt(call.prompt or "")]
    options = call.settings.options
    for name, datatype in SCALARS.items():
        value = getattr(options, name)
        if value is not None:
            kind = "BYTES" if datatype == "STRING" else datatype
            tensors.append(_scalar(TENSORS.get(name, name), kind, float(value) if datatype == "FP32" else value))
    for name, datatype in LISTS.items():
        if values := getattr(options, name):
            kind = "BYTES" if datatype == "STRING" else datatype
            tensors.append(Tensor(name=name, datatype=kind, values=list(values), is_list=True))
    if options.logit_bias:
        bias = {str(token): float(value) for token, value in options.logit_bias.items()}
        tensors.append(_scalar("logit_bias", "BYTES", json.dumps(bias)))
    if options.chat_template_kwargs:
        variables = json.dumps(dict(options.chat_template_kwargs), ensure_ascii=False)
        tensors.append(_scalar("chat_template_kwargs", "BYTES", variables))
    if options.response_format is not None:
        tensors.append(_scalar("response_format", "BYTES", _structured.format_json(options.response_format)))
    if options.tools:
        tensors.append(_scalar("tools", "BYTES", json.dumps(list(options.tools), ensure_ascii=False)))
        if (choice := options.tool_choice) is not None:
            tensors.append(_scalar("tool_choice", "BYTES", choice if isinstance(choice, str) else json.dumps(dict(choice))))
    if deadline_s is not None:
        tensors.append(_scalar("timeout_s", "FP32", float(deadline_s)))
    tensors.append(_scalar("stream", "BOOL", True))
    return tensors


def encode_prompt(prompt: str | Sequence[int]) -> Tensor:
    """The input of a prompt that is sent to the model as it is."""
    if isinstance(prompt, str):
        return _scalar("text_input", "BYTES", prompt)
    return Tensor(name="prompt_token_ids", datatype="INT32", values=list(prompt), is_list=True)


def tokens_of_outputs(outputs: Mapping[str, Any]) -> Tokens:
    """What the model `tokenize` says of a prompt.

    Raises:
        StreamBroken: an output is not what the contract says.
    """
    try:
        ids, names = (value if isinstance(value := outputs[name], list) else [value] for name in ("input_ids", "tokens"))
        return Tokens(
            ids=tuple(map(int, ids)),
            names=tuple(map(str, names)),
            text=str(_one(outputs, "text", "")),
            shown=str(_one(outputs, "shown_text", "")),
            max_length=int(_one(outputs, "max_length", 0)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StreamBroken(f"the server sent malformed tokens: {error!r}") from error


def encode_cancel() -> list[Tensor]:
    """The inputs that, under the id of a running request, abort it."""
    return [_scalar("cancel", "BOOL", True), _scalar("stream", "BOOL", False)]


def to_json(request_id: str, tensors: Sequence[Tensor]) -> bytes:
    """The body of a POST to `generate` or `generate_stream`.

    Raises:
        ValueError: a text holds a lone surrogate, which UTF-8 cannot carry.
    """
    body: dict[str, Any] = {"id": request_id}
    body.update((tensor.name, tensor.values if tensor.is_list else tensor.values[0]) for tensor in tensors)
    return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()


def pack(datatype: str, values: Sequence[Any]) -> bytes:
    """Values as a raw little-endian tensor; a string is its length in 4 bytes and its UTF-8.

    Raises:
        ValueError: a text holds a lone surrogate, which UTF-8 cannot carry.
    """
    if datatype == "BYTES":
        encoded = [value.encode() for value in values]
        return b"".join(struct.pack("<I", len(item)) + item for item in encoded)
    return struct.pack(f"<{len(values)}{_STRUCT[datatype]}", *values)


def unpack(datatype: str, raw: bytes) -> list[Any]:
    """The values of a raw tensor; strings as text.

    Raises:
        StreamBroken: the bytes are not a tensor of this datatype.
    """
    try:
        if datatype != "BYTES":
            return [value for (value,) in struct.iter_unpack(f"<{_STRUCT[datatype]}", raw)]
        values: list[Any] = []
        at = 0
        while at < len(raw):
            (length,) = struct.unpack_from("<I", raw, at)
            (item,) = struct.unpack_from(f"{length}s", raw, at + 4)
            values.append(item.decode())
            at += 4 + length
        return values
    except (KeyError, UnicodeDecodeError, struct.error) as error:
        raise StreamBroken(f"the server sent a malformed {datatype} tensor of {len(raw)} bytes: {error}") from error


def chunk_of_event(data: str, request_id: str) -> Chunk:
    """The chunk in one event of `generate_stream`.

    Raises:
        TriuneError: the event is an error.
        StreamBroken: the event is not a JSON object.
    """
    event = _json_or_none(data)
    if not isinstance(event, dict):
        raise StreamBroken(f"the server sent an event that is not a JSON object: {data[:200]!r}")
    if "error" in event:
        raise from_message(str(event["error"]), ServerError)
    return chunk_of_outputs(event, request_id)


def chunk_of_outputs(outputs: Mapping[str, Any], request_id: str) -> Chunk:
    """The chunk in one response: its outputs by name, each a value or a list of one.

    Raises:
        StreamBroken: an output is not what the contract says.
    """
    reason = _one(outputs, "finish_reason", "") or None
    if reason is not None and reason not in _FINISH_REASONS:
        raise StreamBroken(f"the server sent finish_reason {reason!r}; known: {', '.join(sorted(_FINISH_REASONS))}")
    key = _one(outputs, "request_key", None)
    try:
        return Chunk(
            text=str(_one(outputs, "text_output", "")),
            reasoning=str(_one(outputs, "reasoning_output", "")),
            sequence=int(_one(outputs, "sequence_index", 0)),
            index=int(_one(outputs, "chunk_index", 0)),
            finish_reason=reason,
            stop_reason=_one(outputs, "stop_reason", "") or None,
            tool_format=str(_one(outputs, "tool_format", "")),
            usage=Usage(
                input_tokens=int(_one(outputs, "num_input_tokens", 0)),
                cached_tokens=int(_one(outputs, "num_cached_tokens", 0)),
                output_tokens=int(_one(outputs, "num_output_tokens", 0)),
                reasoning_tokens=int(_one(outputs, "num_reasoning_tokens", 0)),
            ),
            logprobs=_entries(outputs, "logprobs"),
            prompt_logprobs=_entries(outputs, "prompt_logprobs"),
            request_id=request_id,
            request_key=None if key is None else int(key),
        )
    except (TypeError, ValueError) as error:
        raise StreamBroken(f"the server sent a chunk with a malformed output: {error}") from error


def _entries(outputs: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    """Log probabilities, an entry a token."""
    sent = _one(outputs, name, "") or "[]"
    entries = _json_or_none(sent) if isinstance(sent, str) else sent
    if not isinstance(entries, list):
        raise StreamBroken(f"the server sent {name} that are not a JSON list: {sent!r}")
    return tuple(entries)


def error_of_response(status: int, body: bytes, retry_after: str | None, *, now: float) -> TriuneError:
    """The error in an HTTP response; `now` is the time of day in seconds, for a Retry-After that names a date."""
    text = body.decode(errors="replace").strip().removeprefix("data:").strip()  # generate_stream frames errors too
    parsed = _json_or_none(text)
    message = str(parsed["error"]) if isinstance(parsed, dict) and "error" in parsed else text[:500]
    message = message or f"the server answered with HTTP status {status}"
    error = from_message(message, class_of_http(status), status=status)
    if isinstance(error, Overloaded):
        error.retry_after_s = parse_retry_after(retry_after, now=now)
    return error


def parse_retry_after(value: str | None, *, now: float) -> float | None:
    """Seconds to wait from a Retry-After header: a number of seconds, or a date."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass  # not a number of seconds: then it is a date
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except ValueError:
        return None  # neither: as if the header were absent


def models_of_index(index: Any) -> tuple[ModelInfo, ...]:
    """The models in a reply to `repository/index`: a list of objects with name, version, state and reason."""
    known = ("name", "version", "state", "reason")
    return tuple(ModelInfo(**{key: str(entry[key]) for key in known if key in entry}) for entry in index)


def with_request(error: TriuneError, request_id: str, partial: str) -> TriuneError:
    """The same error, saying which request it was and what text it had received."""
    error.request_id = error.request_id or request_id
    error.partial = error.partial or partial
    return error


def _scalar(name: str, datatype: str, value: Any) -> Tensor:
    return Tensor(name=name, datatype=datatype, values=[value])


def _one(outputs: Mapping[str, Any], name: str, default: Any) -> Any:
    value = outputs.get(name, default)
    if isinstance(value, list):
        return value[0] if value else default
    return default if value is None else value


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
