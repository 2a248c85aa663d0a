"""Messages of the ensemble, as the benchmarks read them. Run: pytest tests/bench/test_pieces.py"""

from __future__ import annotations

import struct

import pytest
from bench.pieces import Piece, read_piece
from tritonclient.grpc import service_pb2


def message(**outputs: bytes) -> service_pb2.ModelStreamInferResponse:
    answer = service_pb2.ModelInferResponse(raw_output_contents=list(outputs.values()))
    for name in outputs:
        answer.outputs.add(name=name)
    return service_pb2.ModelStreamInferResponse(infer_response=answer)


def test_a_piece_is_its_tokens_its_text_and_the_prompts_tokens_where_they_are_said() -> None:
    text, count = struct.pack("<I", 3) + "dé".encode(), struct.pack("<I", 2)
    assert read_piece(message(text_output=text, num_output_tokens=count)) == Piece(2, 0, "dé".encode())
    both = message(num_output_tokens=count, num_input_tokens=struct.pack("<I", 700), text_output=text)
    assert read_piece(both) == Piece(2, 700, "dé".encode())


def test_a_message_that_is_an_error_is_raised() -> None:
    with pytest.raises(RuntimeError, match="the server is full"):
        read_piece(service_pb2.ModelStreamInferResponse(error_message="the server is full"))
