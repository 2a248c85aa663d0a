"""The protocols by name: which adapter, which port of a running server, which model by default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .adapter import Dialect, HttpAdapter
from .kserve_infer import InferAdapter
from .openai_chat import ChatAdapter
from .openai_completions import CompletionsAdapter
from .openai_responses import ResponsesAdapter
from .triton_generate import GenerateAdapter


@dataclass(frozen=True, kw_only=True)
class ProtocolInfo:
    """What the tool must know of a protocol before it speaks it."""

    adapter: Callable[[Dialect], HttpAdapter] | None  # None: gRPC
    port: str  # of a running server, by the variable that sets it
    model: str | None  # by default; None: the first that the server lists
    streams: bool
    chat: bool  # whether conversations are its own form
    about: str


PROTOCOLS: dict[str, ProtocolInfo] = {
    "chat": ProtocolInfo(
        adapter=ChatAdapter, port="OPENAI_PORT", model=None, streams=True, chat=True, about="OpenAI's /v1/chat/completions"
    ),
    "completions": ProtocolInfo(
        adapter=CompletionsAdapter, port="OPENAI_PORT", model=None, streams=True, chat=False, about="OpenAI's /v1/completions"
    ),
    "responses": ProtocolInfo(
        adapter=ResponsesAdapter, port="OPENAI_PORT", model=None, streams=True, chat=True, about="OpenAI's /v1/responses"
    ),
    "kserve-grpc": ProtocolInfo(
        adapter=None, port="GRPC_PORT", model="triune", streams=True, chat=False, about="KServe's ModelStreamInfer over gRPC"
    ),
    "grpc-infer": ProtocolInfo(
        adapter=None, port="GRPC_PORT", model="triune_infer", streams=False, chat=False, about="KServe's ModelInfer over gRPC"
    ),
    "generate-stream": ProtocolInfo(
        adapter=GenerateAdapter, port="HTTP_PORT", model="triune", streams=True, chat=False, about="Triton's generate_stream"
    ),
    "generate": ProtocolInfo(
        adapter=GenerateAdapter, port="HTTP_PORT", model="triune", streams=False, chat=False, about="Triton's generate"
    ),
    "infer": ProtocolInfo(
        adapter=InferAdapter,
        port="HTTP_PORT",
        model="triune_infer",
        streams=False,
        chat=False,
        about="KServe's infer over HTTP",
    ),
}
