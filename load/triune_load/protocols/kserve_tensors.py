"""Inputs and outputs of models of language on Triton, by name: what `generate`, `infer` and gRPC share.

Triton's `generate` takes them as JSON keys, the others as tensors; an output is a value or a list of one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..core.answer import Event
from ..core.request import Request
from .adapter import Dialect, Garbled, whole_number, whole_text

Input = tuple[str, str, Any]  # name, Triton's datatype, value


def inputs_of(dialect: Dialect, request: Request) -> list[Input]:
    """The inputs of a request; what the server does not take is left out by the dialect."""
    if request.chat:
        found: list[Input] = [("messages", "BYTES", json.dumps(list(request.messages), ensure_ascii=False))]
    else:
        found = [("text_input", "BYTES", request.text)]
    found.append(("max_tokens", "INT32", request.max_tokens))
    found.append(("stream", "BOOL", request.stream))
    if dialect.sampling:
        found += [("temperature", "FP32", request.temperature), ("seed", "UINT64", request.seed)]
    if request.ignore_eos:
        found.append(("ignore_eos", "BOOL", True))
    if request.schema is not None:
        found.append(
            ("response_format", "BYTES", json.dumps({"type": "json_schema", "json_schema": {"schema": request.schema}}))
        )
    if request.tools:
        found.append(("tools", "BYTES", json.dumps(list(request.tools))))
        found.append(("tool_choice", "BYTES", request.tool_choice))
    if dialect.perf_metrics:
        found.append(("return_perf_metrics", "BOOL", True))
    return found + [(name, _datatype(value), value) for name, value in dialect.extra.items()]


def _datatype(value: Any) -> str:
    if isinstance(value, bool):
        return "BOOL"
    return "INT32" if isinstance(value, int) else "FP32" if isinstance(value, float) else "BYTES"


def event_of(outputs: Mapping[str, Any], identity: str | None) -> Event:
    """The event in the outputs of one response.

    Raises:
        Garbled: an output is not what its name says.
    """
    event = Event(
        text=whole_text(_one(outputs, "text_output"), "text_output"),
        reasoning=whole_text(_one(outputs, "reasoning_output"), "reasoning_output"),
        tokens=whole_number(_one(outputs, "num_output_tokens"), "num_output_tokens"),
        index=whole_number(_one(outputs, "chunk_index"), "chunk_index"),
        finish=whole_text(_one(outputs, "finish_reason"), "finish_reason") or None,
        input_tokens=whole_number(_one(outputs, "num_input_tokens"), "num_input_tokens") or None,  # 0 after the first chunk
        identity=identity,
    )
    arrived, scheduled = _one(outputs, "arrival_time_ns"), _one(outputs, "first_scheduled_time_ns")
    if arrived and scheduled:
        event.queue_s = (scheduled - arrived) / 1e9
    return event


def _one(outputs: Mapping[str, Any], name: str) -> Any:
    value = outputs.get(name)
    while isinstance(value, list):
        if len(value) > 1:
            raise Garbled("order", f"{name} has {len(value)} values in one response; expected one")
        value = value[0] if value else None
    return value
