"""llama.cpp as the judge: of the numbers of what it quantizes, and of answers. Needs xllamacpp: requirements/bench.txt.

Run: pytest tests/builder/test_gguf_llamacpp.py
"""

from __future__ import annotations

import ctypes
import http.client
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench.ports import free_port
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from fakes.gguf_files import WIDE, as_q4_k_m, wide_weights, write_gguf
from triune_builder.checkpoint import Tensor, open_checkpoint
from triune_builder.checkpoint.tensor import BLOCKED
from triune_builder.graph.export import export
from triune_builder.graph.weights import WeightSource
from triune_builder.quantize.schemes.blocks import Blocks
from triune_builder.targets import onnx_files
from triune_builder.targets.cpu.lowering import lower
from triune_runtime.manifest import EngineManifest, Limits
from triune_runtime.runner import Runner, Work
from triune_runtime.targets import make_runner

ROWS, COLUMNS = 64, 1024
NAMES = {"IQ4_NL": "iq4_nl", "IQ4_XS": "iq4_xs", "MXFP4": "mxfp4"}  # of functions; others begin with a small q


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    spec = find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        pytest.skip("needs xllamacpp: requirements/bench.txt")
    (path,) = Path(spec.origin).parent.glob("*.so")
    return ctypes.CDLL(str(path))


def quantized(library: ctypes.CDLL, values: np.ndarray, dtype: str) -> np.ndarray:
    """The bytes of rows."""
    kind = GGMLQuantizationType[dtype]
    block, nbytes = GGML_QUANT_SIZES[kind]
    raw = np.zeros((ROWS, COLUMNS // block * nbytes), np.uint8)
    if dtype == "Q8_K":  # of products' inputs, not of files: no part of the general function
        library.quantize_row_q8_K_ref(
            values.ctypes.data_as(ctypes.c_void_p), raw.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(values.size)
        )
        return raw
    library.ggml_quantize_init(ctypes.c_int(kind.value))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    written = library.ggml_quantize_chunk(
        ctypes.c_int(kind.value), values.ctypes.data_as(ctypes.c_void_p), raw.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_int64(0), ctypes.c_int64(ROWS), ctypes.c_int64(COLUMNS), None,
    )  # fmt: skip
    assert written == raw.nbytes
    return raw


@pytest.mark.parametrize("dtype", sorted(BLOCKED))
def test_numbers_are_those_of_llama_cpp(library: ctypes.CDLL, tmp_path: Path, dtype: str) -> None:
    values = np.random.default_rng(0).normal(0, 0.05, (ROWS, COLUMNS)).astype(np.float32)
    raw, theirs = quantized(library, values, dtype), np.empty_like(values)
    decode = getattr(library, f"dequantize_row_{NAMES.get(dtype, 'q' + dtype[1:])}")
    decode(raw.ctypes.data_as(ctypes.c_void_p), theirs.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(values.size))
    (tmp_path / "t").write_bytes(raw.tobytes())
    ours = Tensor(name="w", shape=values.shape, dtype=dtype, path=tmp_path / "t", offset=0, nbytes=raw.nbytes).float32()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * np.abs(theirs).max())
    assert np.abs(ours - values).mean() < 0.4 * np.abs(values).mean()  # and it is what was quantized


# Percent that int4 and int8 lose of what the file says, as docs/quantization.md has it.
LOST = {
    "Q4_0": (0, 0), "Q4_1": (0, 0.56), "Q4_K": (0, 0.59), "Q5_0": (9.1, 0), "Q5_1": (8.9, 0.54), "Q5_K": (8.9, 0.55),
    "Q6_K": (8.9, 0.52), "Q8_0": (8.9, 0), "IQ4_NL": (8.1, 0), "IQ4_XS": (8.1, 0), "MXFP4": (8.2, 0),
}  # fmt: skip


@pytest.mark.parametrize("dtype", LOST)
def test_what_the_precisions_lose_of_a_file(library: ctypes.CDLL, tmp_path: Path, dtype: str) -> None:
    random = np.random.default_rng(0)
    values = random.standard_normal((ROWS, COLUMNS)) * np.exp(random.normal(0, 0.5, (ROWS, 1))) * 0.05
    values[:, ::97] *= 4
    raw = quantized(library, values.astype(np.float32), dtype)
    (tmp_path / "t").write_bytes(raw.tobytes())
    tensor = Tensor(name="w", shape=values.shape, dtype=dtype, path=tmp_path / "t", offset=0, nbytes=raw.nbytes)
    said = tensor.float32()
    for bits, percent in zip((4, 8), LOST[dtype], strict=True):
        made = Blocks(bits=bits).make(WeightSource("w", (tensor,)), {}).values()
        lost = 100 * np.sqrt(np.square(made - said).sum() / np.square(said).sum())
        assert 0.9 * percent <= lost <= percent + 1e-4, (bits, lost)


def tame_weights() -> dict[str, np.ndarray]:
    """`wide_weights`, of sizes at which layers say more than the last token, and no token is sure."""
    made = {}
    for name, values in wide_weights(1).items():
        size = 0.1 if "embed" in name else 1 / 10
        made[name] = values * np.float32(size) if values.ndim == 2 else np.ones_like(values)
    return made


def served(path: Path, prompt: list[int], tokens: int) -> Any:
    """llama.cpp's greedy answer, with the log probabilities of the likeliest."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="needs requirements/bench.txt")
    params = xllamacpp.CommonParams()
    params.model.path, params.n_parallel, params.n_ctx, params.warmup = str(path), 1, 64, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.hostnames, params.port = ["127.0.0.1"], free_port()
    server = xllamacpp.Server(params)
    connection = http.client.HTTPConnection(server.listening_address.removeprefix("http://"), timeout=60)
    body = {"prompt": prompt, "n_predict": tokens, "ignore_eos": True, "temperature": 0, "n_probs": 5, "return_tokens": True}
    connection.request("POST", "/completion", json.dumps(body), {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    del server
    return answer


def engine(path: Path, folder: Path) -> Runner:
    folder.mkdir()
    bundle = lower(export(open_checkpoint(str(path), cache=folder), max_length=64))
    onnx_files.write(bundle, folder)
    manifest = EngineManifest(
        model="tiny", architecture=bundle.architecture, target="cpu", precision="fp32", engine=onnx_files.MODEL,
        vocab_size=bundle.vocab_size, cache=bundle.cache, stop_token_ids=(0,),
        limits=Limits(max_sequences=1, max_length=64),
    )  # fmt: skip
    return make_runner(manifest, folder)


@pytest.mark.parametrize(("form", "allowed"), [("F32", 0.02), ("Q8_0", 0.2), ("Q4_K_M", 0.3)])
def test_files_are_answered_as_by_llama_cpp(tmp_path: Path, form: str, allowed: float) -> None:
    """It keeps keys and values as float16, and rounds the inputs of quantized products to eight bits: hence what is allowed."""
    how: dict[str, Any] = {"quantize": as_q4_k_m} if form == "Q4_K_M" else {"dtype": form}
    path = write_gguf(tmp_path / "m.gguf", tame_weights(), metadata=WIDE, **how)
    prompt = [7, 100, 200, 30, 4, 9, 77, 180]
    theirs, runner = served(path, prompt, 12), engine(path, tmp_path / "engine")
    logits = runner.run([Work(0, 0, tuple(prompt))])[-1]
    logprobs = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    for one in theirs["completion_probabilities"][0]["top_logprobs"]:
        assert abs(float(logprobs[one["id"]]) - one["logprob"]) < allowed, one
    assert len(set(theirs["tokens"])) > 6
    for at, token in enumerate(theirs["tokens"], start=len(prompt)):
        assert logits.max() - logits[token] < allowed, (at, token)  # the likeliest, or as good
        logits = runner.run([Work(0, at, (token,))])[-1]
