"""What the ensemble's answers over gRPC say, read as cheaply as it can be."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple


class Piece(NamedTuple):
    """Of an answer."""

    tokens: int
    prompt_tokens: int  # 0 where it is not said
    text: bytes


def read_piece(response: Any) -> Piece:
    """A message of `ModelStreamInfer`.

    Raises:
        RuntimeError: it is an error.
    """
    if response.error_message:
        raise RuntimeError(response.error_message)
    answer = response.infer_response
    found = dict(zip((output.name for output in answer.outputs), answer.raw_output_contents, strict=True))
    (tokens,) = struct.unpack("<I", found["num_output_tokens"])
    (prompt_tokens,) = struct.unpack("<I", found.get("num_input_tokens", bytes(4)))
    return Piece(tokens, prompt_tokens, found["text_output"][4:])
