"""LlamaIndex's package for Triton."""

from __future__ import annotations

from typing import Any

from common import ADDRESSES, FRANCE, main
from llama_index.core.llms import ChatMessage
from llama_index.llms.nvidia_triton import NvidiaTriton
from tritonclient.utils import InferenceServerException

MODEL = NvidiaTriton(server_url=ADDRESSES["GRPC"], model="ensemble", tokens=8)


def complete() -> dict[str, Any]:
    pieces = list(MODEL.stream_complete(FRANCE))
    return {
        "text": MODEL.complete(FRANCE).text,
        "streamed": pieces[-1].text,
        "deltas": "".join(piece.delta or "" for piece in pieces),
        "chat": MODEL.chat([ChatMessage(role="user", content=FRANCE)]).message.content,
    }


def error() -> dict[str, Any]:
    try:
        MODEL.complete(FRANCE, beam_width=4)
    except InferenceServerException as caught:
        return {"message": str(caught)}
    raise AssertionError("beam search was not refused")


def stop() -> dict[str, Any]:
    """Ends a long request with the client's own stop signal."""
    client = MODEL._get_client()
    asked = {**MODEL._get_model_default_parameters, "tokens": 1500, "prompt": [[FRANCE]]}
    pieces = client.request_streaming("ensemble", "4711", **asked)
    first = next(pieces)
    client.stop_stream("ensemble", "4711")  # sends the signal and waits for the stream's end
    return {"first": first, "left": pieces.qsize()}


main(complete, error, stop)
