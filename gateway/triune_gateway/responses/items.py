"""The items of a conversation: as clients send them, as they are kept, and as the chat that they are. No I/O.

An item that an answer had can be sent back as it came. What is null in one is the same as absent.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError

from ..errors import ApiError, invalid, not_supported, shown
from ..parts import new_id
from ..schemas import Strict

Json = dict[str, Any]
Sent = TypeVar("Sent", bound=Strict)
Status = Literal["in_progress", "completed", "incomplete"]
_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
_MARK = "triune1."  # begins thinking that a client carries unread


class _Item(Strict):
    id: str | None = None
    status: Status | None = None


class _Message(_Item):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[dict[str, Any]]
    phase: str | None = Field(None, description="no effect")


class _Reference(Strict):
    type: Literal["item_reference"] = "item_reference"
    id: str


class _Text(Strict):
    type: Literal["summary_text", "reasoning_text"]
    text: str


class _Reasoning(_Item):
    type: Literal["reasoning"]
    summary: list[_Text] = Field(default_factory=list)
    content: list[_Text] | None = None
    encrypted_content: str | None = None


class _Call(_Item):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    # what hosted tools know of calls
    caller: Any = Field(None, description="no effect")
    namespace: str | None = Field(None, description="no effect")


class _Output(_Item):
    type: Literal["function_call_output"]
    call_id: str
    output: str | list[dict[str, Any]]
    name: str | None = Field(None, description="no effect")
    caller: Any = Field(None, description="no effect")
    namespace: str | None = Field(None, description="no effect")


_KINDS: Mapping[str, tuple[type[_Item], str]] = {  # type -> what it holds, and how the ids of its kind begin
    "message": (_Message, "msg"), "reasoning": (_Reasoning, "rs"),
    "function_call": (_Call, "fc"), "function_call_output": (_Output, "fco"),
}  # fmt: skip


def read_items(sent: str | Sequence[Json], find: Callable[[str], Json | None]) -> list[Json]:
    """The items of a request, checked, each with an id and its content as parts.

    Args:
        find: gives an item that is kept by its id.

    Raises:
        RequestValidationError, ApiError: an item is malformed, not kept, or of a kind that is not served.
    """
    if isinstance(sent, str):
        sent = [{"role": "user", "content": sent}]
    return [_read(f"input[{place}]", place, item, find) for place, item in enumerate(sent)]


def _read(where: str, place: int, sent: Json, find: Callable[[str], Json | None]) -> Json:
    item = {name: value for name, value in sent.items() if value is not None}
    kind = item.get("type", "item_reference" if set(item) == {"id"} else "message")
    if kind == "item_reference":
        return _referred(_checked(_Reference, place, item).id, find)
    if not isinstance(kind, str) or kind not in _KINDS:
        served = ", ".join((*_KINDS, "item_reference"))
        raise not_supported(f"{where}.type", f"{where} is of the type {kind!r:.60}, which is not served; {served} are.")
    model, prefix = _KINDS[kind]
    checked = _checked(model, place, item)
    read = {"id": item.get("id") or new_id(prefix), "type": kind, **item}
    if isinstance(checked, _Message):
        own = "output_text" if checked.role == "assistant" else "input_text"
        read["content"] = _parts(f"{where}.content", checked.content, own)
        read["status"] = checked.status or "completed"
    elif isinstance(checked, _Reasoning):
        read["summary"] = item.get("summary", [])
        _thought(where, read)  # is checked
    elif isinstance(checked, _Output) and not isinstance(checked.output, str):
        read["output"] = _parts(f"{where}.output", checked.output, "input_text")
    return read


def _checked(model: type[Sent], place: int, item: Json) -> Sent:
    try:
        return model.model_validate(item)
    except ValidationError as error:
        found = [one | {"loc": ("body", "input", place, *one["loc"])} for one in error.errors()]
        raise RequestValidationError(found) from None


def _referred(name: str, find: Callable[[str], Json | None]) -> Json:
    found = find(name)
    if found is None:
        message = (
            f"Item with id {name!r:.80} not found: it was never stored, was deleted, or made room for others. Send it whole."
        )
        raise ApiError(404, message, param="input")
    return found


def _parts(where: str, content: str | list[Json], own: str) -> list[Json]:
    """The content as parts: what they are of the type `own`, or of another that holds text."""
    if isinstance(content, str):
        content = [{"type": own, "text": content}]
    found = []
    for place, part in enumerate(content):
        key = _TEXTS.get(part["type"]) if isinstance(part.get("type"), str) else None
        if key is None or not isinstance(part.get(key), str):
            raise not_supported(f"{where}[{place}]", f"{where}[{place}] is not text: this server reads and writes text only.")
        annotated: Json = {"annotations": []} if own == "output_text" else {}
        found.append({"type": own, "text": part[key], **annotated})
    return found


def carried(thought: str) -> str:
    """Thinking as a client can carry it unread: `encrypted_content`. It hides nothing, since the thinking is told anyway."""
    return _MARK + base64.urlsafe_b64encode(thought.encode("utf-8", "surrogatepass")).decode()


def _thought(where: str, item: Json) -> str:
    """The thinking of an item, from whichever of its fields has it."""
    if texts := item.get("content") or item.get("summary"):
        return "".join(one["text"] for one in texts)
    if not (sealed := item.get("encrypted_content")):
        return ""
    try:
        if not sealed.startswith(_MARK):
            raise ValueError
        return base64.b64decode(sealed.removeprefix(_MARK), altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        message = f"{where}.encrypted_content was not made by this server; leave the item out."
        raise invalid(message, f"{where}.encrypted_content", "invalid_encrypted_content") from None


def chat_messages(items: Sequence[Json]) -> list[Json]:
    """The messages of /v1/chat/completions that these items are.

    What the assistant thought, said and called in one turn is one message there: thinking begins one, and so does a text after
    a text.

    Raises:
        ApiError: the output of a call that is not there.
    """
    messages: list[Json] = []
    turn: Json | None = None  # the assistant's, while it may go on
    calls: set[str] = set()
    for item in items:
        kind = item["type"]
        if kind == "function_call_output" or item.get("role", "assistant") != "assistant":
            turn = None
            messages.append(_told(item, calls))
            continue
        said = turn is not None and turn["content"] is not None
        called = turn is not None and "tool_calls" in turn
        if turn is None or (kind == "reasoning" and (said or called)) or (kind == "message" and said and not called):
            turn = {"role": "assistant", "content": None}
            messages.append(turn)
        if kind == "reasoning":
            turn["reasoning_content"] = turn.get("reasoning_content", "") + _thought("input", item)
        elif kind == "message":
            turn["content"] = (turn["content"] or "") + _joined(item["content"])
        else:
            calls.add(item["call_id"])
            function = {"name": item["name"], "arguments": item["arguments"]}
            turn.setdefault("tool_calls", []).append({"id": item["call_id"], "type": "function", "function": function})
    for message in messages:
        if message["content"] is None and "tool_calls" not in message:
            message["content"] = ""  # a turn that ended in its thinking
    return messages


def _told(item: Json, calls: set[str]) -> Json:
    if item["type"] == "message":
        return {"role": item["role"], "content": _joined(item["content"])}
    if item["call_id"] not in calls:
        message = f"No tool call found for function call output with call_id {shown(item['call_id'])}."
        raise invalid(message, "input")
    output = item["output"]
    return {"role": "tool", "tool_call_id": item["call_id"], "content": output if isinstance(output, str) else _joined(output)}


def _joined(parts: Sequence[Json]) -> str:
    return "".join(part["text"] for part in parts)
