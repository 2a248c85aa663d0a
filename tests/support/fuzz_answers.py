"""What every answer to a fuzzed request must keep to, whichever protocol it came over."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict

Answer = Mapping[str, list[Any]]  # the outputs of one response, each flat
# Triton's own HTTP front says this of JSON that it cannot read, before any model sees it: with 500 in 24.10, later with 400.
_TRITONS_OWN = re.compile(
    r"failed to parse the request JSON buffer|Unable to parse|Converting keyword: 'parameters': Unable to parse|"
    r"parameter key '.*' was not found in the JSON\Z",  # of a key with a zero byte, which it cuts there
    re.DOTALL,
)
_REFUSALS = {"INVALID_ARGUMENT", "UNAVAILABLE", "NOT_FOUND", "UNIMPLEMENTED"}
_INNER_NAMES = ("vllm_text_input", "stop_request")  # of the steps' inputs: no client sends them
_REASONS = {"stop", "length", "cancelled", "deadline"}
_REASONS_OF_VLLM = {"stop", "length", "abort"}
_INTEGERS = {"INT32": "i", "UINT32": "I", "INT64": "q"}


def check_error(status: int, message: str) -> None:
    """An error of the caller's, said in a sentence; of the server's only where it has no room."""
    assert message
    assert "Traceback" not in message and ".py" not in message, message
    assert status < 500 or status == 503 or _TRITONS_OWN.match(message), (status, message)
    assert "INTERNAL" not in message[:100], message  # behind the ensemble's name, if it has one


def check_names(model: str, message: str) -> None:
    """An error names what the client has sent, not what an ensemble's steps call it."""
    if not model.startswith("tokenize"):
        assert not any(f"{name} " in message for name in _INNER_NAMES), message


def check_refusal(error: grpc.RpcError) -> None:
    """A call that ended with a status of its own."""
    assert error.code().name in _REFUSALS, error
    check_error(400, error.details() or "")


def of_json(event: Mapping[str, Any]) -> Answer:
    """An event of `generate_stream`, or the body of `generate`, with all outputs as flat lists."""
    return {name: _flat(value) for name, value in event.items()}


def of_grpc(response: Any) -> Answer:
    """The outputs of a gRPC response that the checks are about."""
    found: dict[str, list[Any]] = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if output.datatype == "BYTES":
            found[output.name] = _strings(raw)
        elif output.datatype in _INTEGERS:
            found[output.name] = [number for (number,) in struct.iter_unpack(f"<{_INTEGERS[output.datatype]}", raw)]
    return found


def check_ends(model: str, answers: Sequence[Answer], request: Any) -> None:
    """Every sequence of a request that was answered ends once, for a reason of its contract's, and says nothing afterwards."""
    vllm = model == "vllm_model"
    ended: dict[tuple[int, int], bool] = {}
    for answer in answers:
        reasons = answer["finish_reason"]
        assert len(answer["text_output"]) == len(reasons) > 0, (answer, _shown(request))
        for place, reason in zip(_places(answer, len(reasons), vllm=vllm), reasons, strict=True):
            open_ = "None" if vllm else ""
            allowed = _REASONS_OF_VLLM if vllm else _REASONS
            assert reason == open_ or reason in allowed, (reason, _shown(request))
            assert vllm or not ended.get(place), (place, answers, _shown(request))
            assert not (ended.get(place) and reason == open_), (place, answers, _shown(request))
            ended[place] = reason != open_
    assert ended and all(ended.values()), (ended, answers, _shown(request))


def _places(answer: Answer, count: int, *, vllm: bool) -> list[tuple[int, int]]:
    """The row and sequence that each element of a response belongs to."""
    if vllm:  # an element for every sequence, and `sequence_index` says whose the response is
        return [(0, index) for index in range(count)]
    rows, sequences = (answer.get(name, [0] * count) for name in ("batch_index", "sequence_index"))
    return list(zip(rows, sequences, strict=True))


def _flat(value: Any) -> list[Any]:
    return [inner for one in value for inner in _flat(one)] if isinstance(value, list) else [value]


def _strings(raw: bytes) -> list[str]:
    found, at = [], 0
    while at < len(raw):
        (size,) = struct.unpack_from("<I", raw, at)
        found.append(raw[at + 4 : at + 4 + size].decode("utf-8"))
        at += 4 + size
    return found


def _shown(request: Any) -> Any:
    return MessageToDict(request) if hasattr(request, "DESCRIPTOR") else request
