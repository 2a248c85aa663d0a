"""Helpers of the graph tests: run a float graph, make an engine, made-up calibration, sizes that blocks of 32 divide."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from triune_builder.graph.export import GraphBundle, export
from triune_builder.quantize.apply import quantize
from triune_builder.quantize.policy import ROUTERS, Precision
from triune_builder.quantize.statistics import MAXIMA, Statistics
from triune_builder.targets import onnx_files
from triune_builder.targets.cpu.lowering import lower
from triune_builder.targets.cpu.precisions import PRECISIONS, find_precision
from triune_runtime.manifest import EngineManifest, Limits
from triune_runtime.runner import Runner
from triune_runtime.targets import make_runner
from triune_runtime.targets.cpu.plan import HEADS

from .tiny_llama import FakeCheckpoint

BLOCK_SIZES = {"hidden_size": 64, "intermediate_size": 96}


def float_logits(bundle: GraphBundle, folder: Path, chunks: list[list[int]]) -> NDArray[np.float32]:
    """Run a float graph, whose cache grows by concatenation, chunk after chunk; the last chunk's logits."""
    onnx_files.write(bundle, folder)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # else sums of integers saturate without VNNI
    session = onnxruntime.InferenceSession(str(folder / onnx_files.MODEL), options, providers=["CPUExecutionProvider"])
    cache = {f"past.{c.name}": np.zeros((1, c.heads, 0, c.dim), np.float32) for c in bundle.cache}
    done, logits = 0, np.empty((1, 1, 0), np.float32)
    for chunk in chunks:
        done += len(chunk)
        feeds = {"input_ids": np.array([chunk]), "total_lengths": np.array([done], np.int32), "logit_positions": np.array([-1])}
        logits, *present = session.run(["logits", *(f"present.{c.name}" for c in bundle.cache)], feeds | cache)
        cache = dict(zip(cache, present, strict=True))
    return np.asarray(logits[0, -1])


def made_up_maxima(checkpoint: FakeCheckpoint, unevenness: float = 0.3) -> Statistics:
    """Made-up observations of every linear's input, log-normal with deviation `unevenness`."""
    random = np.random.default_rng(5)
    names = [n for n in checkpoint.weights if n.endswith("_proj.weight")]
    sizes = {n: checkpoint.weights[n].shape[1] for n in names} | {"lm_head.weight": checkpoint.config["hidden_size"]}
    sized = {n: np.exp(random.normal(size=size) * unevenness).astype(np.float32) for n, size in sizes.items()}
    return {MAXIMA: {n: array.astype(np.float64) for n, array in sized.items()}}


def allowed_batch_error(precision: str) -> float:
    """The largest relative difference between a sequence alone and among others on this processor; 0: the same bits."""
    return (PRECISIONS[precision].budget.batch_error or 0.0) if precision in PRECISIONS else 0.0


class Engine(NamedTuple):
    """A lowered engine, and the quantized graph's own definition of it: logits after a whole history."""

    precision: str
    manifest: EngineManifest
    runner: Runner
    definition: Callable[[list[int]], NDArray[np.float32]]


def find_rules(precision: str) -> Precision:
    """The precision of that name; "rows" has every product as w8a8 has most of them, so that nothing is rounded in an op."""
    rows = Precision(name="rows", linear=(ROUTERS, ("*", "w8a8")), embedding="embedding_blocks8")
    return rows if precision == rows.name else find_precision(precision)


def make_engine(checkpoint: FakeCheckpoint, precision: str, folder: Path, *, slots: int = 4, max_length: int = 128) -> Engine:
    """Build `checkpoint` into `folder` and load it as it would be served."""
    (folder / "plain").mkdir()
    made = []
    for _ in range(2):
        bundle = export(checkpoint, max_length=max_length)  # type: ignore[arg-type]  # a fake
        made.append(quantize(bundle, find_rules(precision), made_up_maxima(checkpoint)).bundle)
    plain, lowered = made[0], lower(made[1])
    onnx_files.write(lowered, folder)
    manifest = EngineManifest(
        model="tiny", architecture=lowered.architecture, target="cpu", precision=precision, engine=onnx_files.MODEL,
        vocab_size=lowered.vocab_size, cache=lowered.cache, stop_token_ids=(0,),
        limits=Limits(max_sequences=slots, max_length=max_length), plan={HEADS: checkpoint.config["num_attention_heads"]},
    )  # fmt: skip
    return Engine(
        precision, manifest, make_runner(manifest, folder), lambda history: float_logits(plain, folder / "plain", [history])
    )
