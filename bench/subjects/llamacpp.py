"""llama.cpp's server (package xllamacpp), reading the same GGUF file, over HTTP."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import xllamacpp

from ..answers import ask_together
from ..ports import free_port
from ..timing import Stream

_SLOTS = 16
_SLOT_TOKENS = 512
_TIMEOUT_S = 300


class Subject:
    """See `bench.worker.Subject`."""

    def __init__(self, gguf: str, threads: int) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = gguf
        params.n_parallel = _SLOTS
        params.n_ctx = _SLOTS * _SLOT_TOKENS
        params.cont_batching = True
        params.cache_prompt = False
        params.cache_ram_mib = 0  # no copies of slots' states: no prompt comes twice
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.hostnames, params.port = ["127.0.0.1"], free_port()
        self._server = xllamacpp.Server(params)
        self._threads = threads
        self._address = self._server.listening_address.removeprefix("http://")

    def about(self) -> dict[str, Any]:
        features = [part.split(":")[-1].split("=")[0].strip() for part in xllamacpp.get_system_info().split("|") if "=" in part]
        return {
            "xllamacpp": version("xllamacpp"), "compiled for": " ".join(features), "slots": _SLOTS, "threads": self._threads,
        }  # fmt: skip

    def generate(self, prompts: list[str], tokens: int) -> list[Stream]:
        return ask_together(lambda prompt: self._ask(prompt, tokens), prompts)

    def close(self) -> None:
        del self._server

    def _ask(self, prompt: str, tokens: int) -> Iterator[int]:
        body = {
            "prompt": prompt, "n_predict": tokens, "stream": True, "ignore_eos": True, "temperature": 0, "cache_prompt": False,
        }  # fmt: skip
        connection = http.client.HTTPConnection(self._address, timeout=_TIMEOUT_S)
        connection.request("POST", "/completion", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise RuntimeError(f"llama.cpp answered {response.status}: {response.read()[:200]!r}")
        seen = 0
        for line in response:
            if line.startswith(b"data:"):
                # Cumulative: a token whose text is not whole yet comes with a later piece.
                predicted = json.loads(line.removeprefix(b"data:"))["tokens_predicted"]
                yield predicted - seen
                seen = predicted
        connection.close()
