"""The full server over gRPC streaming: tritonserver, its three steps, and our own client on the same machine."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from triune_client.grpc import GrpcClient

from ..answers import ask_together
from ..serving import Serving
from ..timing import Stream


class Subject:
    """See `bench.worker.Subject`."""

    def __init__(self, repository: str) -> None:
        self._serving = Serving(repository, openai=False)
        self.client = GrpcClient(self._serving.grpc_url, timeout_s=None, max_retries=0)

    def about(self) -> dict[str, Any]:
        return {"tritonclient": version("tritonclient"), "streams": "one gRPC stream for each answer"}

    def generate(self, prompts: list[str], tokens: int) -> list[Stream]:
        def ask(prompt: str) -> Iterator[int]:
            with self.client.stream(prompt, max_tokens=tokens, ignore_eos=True, temperature=0.0) as chunks:
                for chunk in chunks:
                    yield chunk.usage.output_tokens

        return ask_together(ask, prompts)

    def close(self) -> None:
        self.client.close()
        self._serving.close()
