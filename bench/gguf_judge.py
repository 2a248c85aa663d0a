"""llama.cpp on a GGUF file: makes one in another type, or says what it thinks of given tokens.

Runs under a Python that has NumPy and the package llama-cpp-py-sync, and nothing of the project:
`python gguf_judge.py quantize SOURCE TARGET Q4_K_M`, or `python gguf_judge.py FILE` with windows and prompts as JSON on
standard input; `bench.gguf_files` does the latter.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from llama_cpp_py_sync._cffi_bindings import get_ffi, get_lib
from numpy.typing import NDArray

_TOKENS = 1024  # of a sequence at most


def quantize(source: str, target: str, kind: str) -> None:
    ffi, lib = get_ffi(), get_lib()
    params = lib.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = getattr(lib, f"LLAMA_FTYPE_MOSTLY_{kind}"), True
    if lib.llama_model_quantize(source.encode(), target.encode(), ffi.new("llama_model_quantize_params *", params)):
        raise SystemExit(f"llama.cpp could not write {target}")


class Judge:
    """A file, loaded; its keys and values are float32, so that only the products differ."""

    def __init__(self, path: str) -> None:
        self._ffi, self._lib = get_ffi(), get_lib()
        self._model = self._lib.llama_model_load_from_file(path.encode(), self._lib.llama_model_default_params())
        if self._model == self._ffi.NULL:
            raise SystemExit(f"llama.cpp could not read {path}")
        self._vocabulary = self._lib.llama_vocab_n_tokens(self._lib.llama_model_get_vocab(self._model))
        params = self._lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = _TOKENS
        params.type_k = params.type_v = self._lib.GGML_TYPE_F32
        params.n_threads = params.n_threads_batch = 1  # more spin while others work
        self._context = self._lib.llama_init_from_model(self._model, params)

    def losses(self, tokens: list[int], followers: list[int]) -> list[float]:
        """What the true followers cost, in nats, read from an empty cache."""
        rows = self._logits(tokens, 0, len(tokens)).astype(np.float64)
        top = rows.max(axis=1, keepdims=True)
        sums = top[:, 0] + np.log(np.exp(rows - top).sum(axis=1))
        losses: list[float] = (sums - rows[np.arange(len(rows)), followers]).tolist()
        return losses

    def answer(self, prompt: list[int], count: int) -> list[int]:
        """Greedy tokens."""
        made = [int(self._logits(prompt, 0, 1).argmax())]
        while len(made) < count:
            made.append(int(self._logits(made[-1:], len(prompt) + len(made) - 1, 1).argmax()))
        return made

    def _logits(self, tokens: list[int], start: int, last: int) -> NDArray[np.float32]:
        """[last, vocabulary]: behind each of the `last` last tokens."""
        if start == 0:
            self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
        batch = self._lib.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, start + i, 1, 0
            batch.logits[i] = i >= len(tokens) - last
        if self._lib.llama_decode(self._context, batch):
            raise SystemExit("llama.cpp could not run these tokens")
        self._lib.llama_batch_free(batch)
        bytes_of = self._ffi.buffer(self._lib.llama_get_logits(self._context), 4 * last * self._vocabulary)
        return np.frombuffer(bytes_of, np.float32).reshape(last, self._vocabulary).copy()


def main() -> None:
    get_lib().llama_backend_init()
    if sys.argv[1] == "quantize":
        quantize(*sys.argv[2:5])
        return
    asked, judge = json.load(sys.stdin), Judge(sys.argv[1])
    losses = [judge.losses(tokens, followers) for tokens, followers in asked["windows"]]
    print(json.dumps({"losses": losses, "answers": [judge.answer(prompt, asked["count"]) for prompt in asked["prompts"]]}))


if __name__ == "__main__":
    main()
