"""KServe over gRPC, ModelStreamInfer and ModelInfer: messages in and out. No channel.

Needs the extra `grpc`. One message carries one request or one chunk; strings are bytes with their length before them.
"""

from __future__ import annotations

import struct
from typing import Any

from ..core.answer import Event
from ..core.request import Request
from .adapter import Dialect, Garbled, text_of
from .kserve_tensors import event_of, inputs_of

_STRUCT = {"INT32": "<i", "UINT32": "<I", "INT64": "<q", "UINT64": "<Q", "FP32": "<f", "BOOL": "<?"}
_READ = frozenset(
    ("text_output", "reasoning_output", "num_output_tokens", "num_input_tokens", "chunk_index", "finish_reason",
     "arrival_time_ns", "first_scheduled_time_ns")
)  # fmt: skip


class GrpcAdapter:
    """Messages of one model.

    Args:
        service_pb2: tritonclient's module of messages.
        streams: whether answers are streamed; else ModelInfer is meant.
    """

    def __init__(self, dialect: Dialect, service_pb2: Any, *, streams: bool) -> None:
        self._dialect, self._pb, self.streams = dialect, service_pb2, streams

    def encode(self, request: Request) -> Any:
        """The message of a request."""
        message = self._pb.ModelInferRequest(model_name=self._dialect.model, id=request.identity)
        if self.streams:
            message.parameters["triton_enable_empty_final_response"].bool_param = True
        for name, datatype, value in inputs_of(self._dialect, request):
            if name == "stream" and not self.streams:
                continue
            message.inputs.add(name=name, datatype=datatype, shape=[1])
            message.raw_input_contents.append(_pack(datatype, value))
        return message

    def decode(self, response: Any) -> Event:
        """The event in a message of a stream.

        Raises:
            Garbled: it is none.
        """
        if response.error_message:
            return Event(error=response.error_message)
        return self.decode_whole(response.infer_response)

    def decode_whole(self, answer: Any) -> Event:
        """The event in one response.

        Raises:
            Garbled: it is none.
        """
        if len(answer.outputs) != len(answer.raw_output_contents):
            raise Garbled(
                "json", f"a response has {len(answer.outputs)} outputs and {len(answer.raw_output_contents)} contents"
            )
        outputs = {
            output.name: _unpack(output.name, output.datatype, raw)
            for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
            if output.name in _READ
        }
        event = event_of(outputs, answer.id or None)
        event.done = answer.parameters["triton_final_response"].bool_param if self.streams else True
        return event


def _pack(datatype: str, value: Any) -> bytes:
    if datatype == "BYTES":
        encoded = str(value).encode()
        return struct.pack("<I", len(encoded)) + encoded
    return struct.pack(_STRUCT[datatype], value)


def _unpack(name: str, datatype: str, raw: bytes) -> Any:
    """The one value of a tensor; None if it has none."""
    if not raw:
        return None
    if datatype == "BYTES":
        (length,) = struct.unpack_from("<I", raw) if len(raw) >= 4 else (-1,)
        if length != len(raw) - 4:
            raise Garbled("json", f"{name} is malformed: {raw[:40]!r}")
        return text_of(raw[4:])
    try:
        (value,) = struct.unpack(_STRUCT[datatype], raw)
    except (KeyError, struct.error) as error:
        raise Garbled("json", f"{name} is a malformed {datatype}: {error}") from None
    return value
