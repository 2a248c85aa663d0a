"""Whatever tensors are sent over gRPC, the server says what is wrong. Run: pytest tests/e2e/test_bad_tensors.py"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

import grpc
import httpx
import psutil
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from support.real_server import RealServer, wait_ready

pytestmark = pytest.mark.triton
GOOD = {"text_input": "The capital of France is", "max_tokens": 2}


def processes(server: RealServer) -> set[int]:
    return {p.pid for p in psutil.Process(server.process.pid).children(recursive=True)}


@pytest.fixture
def unharmed(server: RealServer) -> Iterator[RealServer]:
    """The server, which must hold no slot afterwards, answer, and have started no process again."""
    before = processes(server)
    yield server
    assert server.generate(**GOOD).json()["text_output"].startswith(" Paris")
    server.wait_idle()
    assert processes(server) == before, "a bad input ended a process of the server"


def text(*values: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


PROMPT = ("text_input", "BYTES", [1], text(b"Hi"))
TWO = ("max_tokens", "INT32", [1], struct.pack("<i", 2))
Raw = tuple[str, str, list[int], bytes]
OVER_GRPC: dict[str, tuple[str, list[Raw], str]] = {
    "a length beyond the bytes": (
        "triune",
        [("text_input", "BYTES", [1], struct.pack("<I", 1000) + b"Hi"), TWO],
        "incomplete string",
    ),
    "no length": ("triune", [("text_input", "BYTES", [1], b"Hi"), TWO], "incomplete string"),
    "no bytes": ("triune", [("text_input", "BYTES", [1], b""), TWO], "string elements"),
    "a string too many": ("triune", [("text_input", "BYTES", [1], text(b"a", b"b")), TWO], "string elements"),
    "no UTF-8": ("triune", [("text_input", "BYTES", [1], text(b"\xff")), TWO], "not valid UTF-8"),
    "another type": ("triune", [PROMPT, ("max_tokens", "INT64", [1], struct.pack("<q", 2))], "expects 'INT32'"),
    "half a number": ("triune", [PROMPT, ("max_tokens", "INT32", [1], b"\1\0")], "byte size mismatch"),
    "another shape": ("triune", [PROMPT, ("max_tokens", "INT32", [2], struct.pack("<ii", 2, 2))], "unexpected shape"),
    "no shape": ("triune", [PROMPT, ("max_tokens", "INT32", [-1], struct.pack("<i", 2))], "should be specified"),
    "NaN": ("triune", [PROMPT, ("top_p", "FP32", [1], struct.pack("<f", float("nan")))], "top_p is nan"),
    "an unknown input": ("triune", [PROMPT, ("nope", "INT32", [1], struct.pack("<i", 2))], "unexpected inference input"),
    "an unknown model": ("nope", [PROMPT], "unknown model"),
    "no version": ("triune/9", [PROMPT], "version 9 is not found"),
    "a version that is no number": ("triune/x", [PROMPT], "version should be an integral value"),
    "an input twice": ("triune", [PROMPT, PROMPT], "already exists"),
    "another rank": ("triune", [("text_input", "BYTES", [1, 1], text(b"Hi"))], "unexpected shape"),
    "a stop that is no UTF-8": ("triune", [PROMPT, ("stop", "BYTES", [1], text(b"\xff"))], "stop is not valid UTF-8"),
    "messages that are no UTF-8": ("triune", [("messages", "BYTES", [1], text(b"[\xff"))], "messages is not valid UTF-8"),
    "LoRA's weights": ("triune", [PROMPT, ("lora_weights", "FP16", [1, 2], bytes(4))], "lora_weights is not served"),
    "LoRA's config": ("triune", [PROMPT, ("lora_config", "INT32", [1, 3], bytes(12))], "lora_config is not served"),
    "64 MB": ("triune", [("text_input", "BYTES", [1], text(b"a" * 64_000_000))], "has 64,000,000 bytes"),
    "rows that do not match": (
        "ensemble",
        [
            ("text_input", "BYTES", [3, 1], text(b"a", b"b", b"c")),
            ("max_tokens", "INT32", [2, 1], struct.pack("<ii", 2, 2)),
        ],
        "max_tokens has 2 rows, another input has 3",
    ),
    "two prompts without rows": ("triune", [("text_input", "BYTES", [2], text(b"a", b"b"))], "unexpected shape"),
}


FLOATS = [
    "temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "length_penalty",
    "timeout_s",
]  # fmt: skip


def sent(server: RealServer, model: str, inputs: list[Raw], **metadata: str) -> list[service_pb2.ModelStreamInferResponse]:
    """What comes back on a gRPC stream; `model` may be NAME/VERSION."""
    name, _, version = model.partition("/")
    request = service_pb2.ModelInferRequest(model_name=name, model_version=version)
    for tensor, datatype, shape, raw in inputs:
        request.inputs.add(name=tensor, datatype=datatype, shape=shape)
        request.raw_input_contents.append(raw)
    with grpc.insecure_channel(server.options.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        return list(stub.ModelStreamInfer(iter((request,)), timeout=20, metadata=tuple(metadata.items())))


@pytest.mark.parametrize("name", OVER_GRPC)
def test_a_bad_tensor_is_answered_with_its_reason(unharmed: RealServer, name: str) -> None:
    model, inputs, message = OVER_GRPC[name]
    (response,) = sent(unharmed, model, inputs)
    assert message in response.error_message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -1e9, 1e9])
@pytest.mark.parametrize("name", FLOATS)
def test_no_number_beyond_its_range_is_taken(unharmed: RealServer, name: str, value: float) -> None:
    (response,) = sent(unharmed, "triune", [PROMPT, TWO, (name, "FP32", [1], struct.pack("<f", value))])
    head = f"INVALID_ARGUMENT [{'unsupported' if name == 'length_penalty' else 'invalid_value'} {name}]: "
    assert f"{head}{name} is {value:.0f}" in response.error_message


ENDED_BY_GRPC: dict[str, tuple[str, list[Raw], str]] = {
    "of tokenize": ("triune", [PROMPT, ("top_p", "FP32", [1], struct.pack("<f", 7))], "top_p is 7"),
    "of generate": ("triune", [PROMPT, ("max_tokens", "INT32", [1], struct.pack("<i", 10**6))], "this engine holds"),
    "of a direct request": (
        "generate",
        [("input_ids", "INT32", [1], struct.pack("<i", -1)), ("options", "BYTES", [1], text(b"{}"))],
        "token id -1",
    ),
}


def test_errors_that_end_a_stream_as_grpc_s_own_leave_a_server_that_answers(own_server: RealServer) -> None:
    """The header triton_grpc_error has Triton cancel the stream itself, in which 2.51 has a race that can end the server."""
    for model, inputs, message in ENDED_BY_GRPC.values():
        for _ in range(5):
            with pytest.raises(grpc.RpcError) as caught:
                sent(own_server, model, inputs, triton_grpc_error="true")
            if caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT:
                assert message in caught.value.details()
            else:  # the race
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
                time.sleep(1)
                wait_ready(own_server, timeout_s=30)
    wait_ready(own_server, timeout_s=30)
    deadline = time.monotonic() + 30
    while not answers(own_server):
        assert time.monotonic() < deadline, "the server did not come back"
        time.sleep(0.2)


def answers(server: RealServer) -> bool:
    try:
        return server.generate(**GOOD).status_code == 200
    except httpx.HTTPError:
        return False
