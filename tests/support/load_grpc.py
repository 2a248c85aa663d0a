"""A pretended KServe server over gRPC, that may spoil its streams. For tests of the load test."""

from __future__ import annotations

import random
import struct
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from triune_load.selftest.words import answer_tokens, count_tokens


class FakeKserve(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers ModelStreamInfer and ModelInfer.

    Args:
        fault: drop, repeat, swap, corrupt, text, truncate, identity or error; none if empty.
        share: of streams that get it.
        skip: requests before the first that may get it.
    """

    def __init__(self, fault: str = "", *, share: float = 0.3, skip: int = 0) -> None:
        self._fault, self._share, self._skip = fault, share, skip
        self._rng = random.Random(0)
        self.applied = 0
        self.left = 0

    async def listen(self) -> tuple[Any, int]:
        """Starts; the port is given back."""
        server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        prompt, tokens, _ = _asked(request)
        return _response(request.id, 0, "".join(answer_tokens(prompt, tokens)), count_tokens(prompt), tokens, True)

    async def ModelStreamInfer(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            prompt, tokens, stream = _asked(request)
            texts, words = answer_tokens(prompt, tokens), count_tokens(prompt)
            if not stream:
                answers = [_response(request.id, 0, "".join(texts), words, tokens, True)]
            else:
                last = tokens - 1
                answers = [_response(request.id, n, t, words if not n else 0, 1, n == last) for n, t in enumerate(texts)]
                answers = self._spoil(answers)
            for answer in answers:
                yield service_pb2.ModelStreamInferResponse(
                    infer_response=None if isinstance(answer, str) else answer,
                    error_message=answer if isinstance(answer, str) else "",
                )

    def _spoil(self, answers: list[Any]) -> list[Any]:
        self._skip -= 1
        if not self._fault or self._skip >= 0 or self._rng.random() >= self._share:
            return answers
        self.applied += 1
        place = self._rng.randrange(1, len(answers) - 1)
        match self._fault:
            case "drop":
                del answers[place]
            case "repeat":
                answers.insert(place, answers[place])
            case "swap":
                answers[place], answers[place - 1] = answers[place - 1], answers[place]
            case "corrupt":
                answers[place].raw_output_contents[0] += b"\xff"
            case "text":
                answers[place].raw_output_contents[0] = _bytes(" other")
            case "truncate":
                del answers[place:]
            case "identity":
                answers[place].id = "other"
            case "error":
                answers[place:] = ["INTERNAL: it broke"]
        return answers


def _asked(request: Any) -> tuple[str, int, bool]:
    raw = {i.name: content for i, content in zip(request.inputs, request.raw_input_contents, strict=True)}
    text = (raw.get("text_input") or raw["messages"])[4:].decode()
    return text, struct.unpack("<i", raw["max_tokens"])[0], raw.get("stream") == b"\x01"


def _response(identity: str, index: int, text: str, input_tokens: int, output_tokens: int, last: bool) -> Any:
    answer = service_pb2.ModelInferResponse(model_name="triune", id=identity)
    answer.parameters["triton_final_response"].bool_param = last
    for name, datatype, raw in (
        ("text_output", "BYTES", _bytes(text)),
        ("finish_reason", "BYTES", _bytes("length" if last else "")),
        ("chunk_index", "INT32", struct.pack("<i", index)),
        ("num_input_tokens", "UINT32", struct.pack("<I", input_tokens)),
        ("num_output_tokens", "UINT32", struct.pack("<I", output_tokens)),
        ("arrival_time_ns", "INT64", struct.pack("<q", 1_000_000)),
        ("first_scheduled_time_ns", "INT64", struct.pack("<q", 3_000_000)),
    ):
        answer.outputs.add(name=name, datatype=datatype, shape=[1])
        answer.raw_output_contents.append(raw)
    return answer


def _bytes(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<I", len(encoded)) + encoded
