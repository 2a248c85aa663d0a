"""The best tokens that a TensorRT engine finds itself: as the network has them, and as the checks see them.

Run: pytest tests/builder/test_tensorrt_best.py
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.utils
import onnxruntime
import pytest
from numpy.typing import NDArray

from fakes.hash_engine import HashRunner, highest, lowest
from fakes.runtime import make_manifest
from fakes.tensorrt_engines import LIMITS, RTX, Lowered, lowered, tiny
from fakes.tiny_llama import TinyRunner, tiny_checkpoint
from triune_builder.targets.tensorrt import adapter
from triune_builder.targets.tensorrt.interpreter import Interpreter
from triune_builder.targets.tensorrt.precisions import PRECISIONS
from triune_builder.targets.tensorrt.proof import verify_network
from triune_builder.verify.best import best_errors
from triune_builder.verify.report import verification_from
from triune_builder.verify.verification import problems
from triune_runtime.targets.fake.runner import FakeRunner

NAN, INF = math.nan, math.inf
TOKENS = [int(t) for t in np.random.default_rng(3).integers(0, 256, 30)]


def by_definition(row: list[float]) -> tuple[int, float]:
    """The first token with the highest logit, and that; infinity where there is none."""
    if any(math.isnan(x) for x in row) or max(row) in (INF, -INF):
        return -1, INF
    return row.index(max(row)), max(row)


def rows() -> NDArray[np.float32]:
    """Logits [batch, m, 256]: random ones, ties at either end, and what is no number."""
    logits = np.random.default_rng(1).standard_normal((3, 8, 256)).astype(np.float16).astype(np.float32)
    logits[0, 0, [3, 200, 255]] = 9.0
    logits[0, 1, [0, 255]] = 9.0
    logits[0, 2] = 0.0
    logits[0, 3] = -5.0
    logits[0, 4, 255] = 65504.0
    logits[0, 5, :255] = -INF
    logits[1, 0, 7] = NAN
    logits[1, 1] = NAN
    logits[1, 2, 9] = INF
    logits[1, 3] = -INF
    logits[1, 4, [4, 250]] = [INF, NAN]
    logits[2] = np.rint(logits[2])
    return logits


@pytest.fixture(scope="module")
def choice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a lowered graph, what makes best tokens of the logits."""
    folder = tmp_path_factory.mktemp("choice")
    whole = onnx.load(str(lowered(tiny("llama"), "fp16", folder).graph))
    path = folder / "choice.onnx"
    onnx.save(onnx.utils.Extractor(whole).extract_model(["logits"], ["best_tokens", "best_logits"]), str(path))
    return path


def in_tensorrt(path: Path, logits: NDArray[np.float32]) -> Mapping[str, NDArray[Any]]:
    rt = adapter.load(RTX)
    network = adapter.Network(rt, path, {})
    assert not {layer.type.name for layer in network.layers()} & {"TOPK"}, "which says nothing of equals"
    return Interpreter(rt.trt, network.definition, {}).run({"logits": logits})


def in_onnx_runtime(path: Path, logits: NDArray[np.float32]) -> Mapping[str, NDArray[Any]]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = ["best_tokens", "best_logits"]
    return dict(zip(names, session.run(names, {"logits": logits}), strict=True))


@pytest.mark.parametrize("compute", [in_tensorrt, in_onnx_runtime])
def test_the_first_of_equals_is_best_and_what_is_no_number_is_told(choice: Path, compute: Any) -> None:
    logits = rows()
    found = compute(choice, logits)
    assert found["best_tokens"].dtype == np.int64 and found["best_logits"].dtype == np.float32
    for at in np.ndindex(logits.shape[:2]):
        token, logit = by_definition(logits[at].tolist())
        if token < 0:
            assert not np.isfinite(found["best_logits"][at]), at
        else:
            assert (found["best_tokens"][at], found["best_logits"][at]) == (token, logit), at


def with_twins(folder: Path) -> Lowered:
    """A model for which every token has a twin with the same logit."""
    checkpoint = tiny("llama", tie_word_embeddings=False)
    head = checkpoint.weights["lm_head.weight"].array
    head[128:] = head[:128]
    return lowered(checkpoint, "fp16", folder)


def taking_the_last(graph: Path) -> None:
    """Let the graph choose the last of equals."""
    model = onnx.load(str(graph), load_external_data=False)
    for node in model.graph.node:
        if node.name == "best.lowest":
            node.op_type = "ReduceMax"
    for tensor in model.graph.initializer:
        if tensor.name == "best.nobody":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(-1, np.int32), tensor.name))
    onnx.save(model, str(graph))


def test_a_network_that_takes_the_last_of_equals_is_told_from_its_logits(tmp_path: Path) -> None:
    engine, checkpoint = with_twins(tmp_path), tiny("llama", tie_word_embeddings=False)
    right = engine.runner()
    right.run(0, [TOKENS[:8]], [0], list(range(8)))
    assert right.best_errors == 0
    taking_the_last(engine.graph)
    wrong = engine.runner()
    wrong.run(0, [TOKENS[:8]], [0], list(range(8)))
    wrong.run(0, [[1], [2]], [8, 0], [0])
    assert wrong.best_errors == 10
    found = verify_network(wrong, LIMITS, checkpoint)
    over = problems(found, PRECISIONS["fp16"].engine)
    assert any(p.endswith("rows have another best token than the engine finds") for p in over)


def test_a_build_that_finds_no_wrong_token_says_so_in_its_report(tmp_path: Path) -> None:
    checkpoint = tiny("llama")
    found = verify_network(lowered(checkpoint, "fp16", tmp_path).runner(), LIMITS, checkpoint)
    assert found.best_errors == 0 and not problems(found, PRECISIONS["fp16"].network)
    raw = json.loads(json.dumps(dataclasses.asdict(found)))
    assert verification_from(raw) == found
    assert verification_from(raw | {"best_errors": None}).best_errors is None
    assert verification_from({k: v for k, v in raw.items() if k != "best_errors"}).best_errors is None


def test_an_engine_is_asked_for_tokens_that_its_logits_contradict() -> None:
    """On a device without a GPU: prompts, decoding as it is queued, recorded and replayed, with and without logits."""
    manifest = make_manifest(max_sequences=5, max_length=64, prefill_chunk=16)
    text = [2 + t % 20 for t in TOKENS]
    assert best_errors(HashRunner.of(manifest, lowest).runner, manifest.limits, text) == 0
    assert best_errors(HashRunner.of(manifest, highest).runner, manifest.limits, text)
    assert best_errors(HashRunner.of(manifest, best=False).runner, manifest.limits, text) is None
    assert best_errors(FakeRunner(manifest.vocab_size), manifest.limits, text) is None
    tiny_one = tiny_checkpoint()
    assert best_errors(TinyRunner(tiny_one.config, tiny_one.weights, {}), manifest.limits, text) is None
