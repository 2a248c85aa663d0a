"""Helpers of the graph tests: run a float graph, made-up calibration, sizes that blocks of 32 divide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from triune_builder.engine import ort
from triune_builder.graph.export import GraphBundle

from .tiny_llama import FakeCheckpoint

BLOCK_SIZES = {"hidden_size": 64, "intermediate_size": 96}


def float_logits(bundle: GraphBundle, folder: Path, chunks: list[list[int]]) -> NDArray[np.float32]:
    """Run a float graph, whose cache grows by concatenation, chunk after chunk; the last chunk's logits."""
    ort.write(bundle, folder)
    session = onnxruntime.InferenceSession(str(folder / ort.MODEL), providers=["CPUExecutionProvider"])
    cache = {f"past.{c.name}": np.zeros((1, c.heads, 0, c.dim), np.float32) for c in bundle.cache}
    done, logits = 0, np.empty((1, 1, 0), np.float32)
    for chunk in chunks:
        done += len(chunk)
        feeds = {"input_ids": np.array([chunk]), "total_lengths": np.array([done], np.int32), "logit_positions": np.array([-1])}
        logits, *present = session.run(["logits", *(f"present.{c.name}" for c in bundle.cache)], feeds | cache)
        cache = dict(zip(cache, present, strict=True))
    return np.asarray(logits[0, -1])


def made_up_maxima(checkpoint: FakeCheckpoint, unevenness: float = 0.3) -> dict[str, NDArray[np.float32]]:
    """Made-up observations of every linear's input, log-normal with deviation `unevenness`."""
    random = np.random.default_rng(5)
    names = [n for n in checkpoint.weights if n.endswith("_proj.weight")]
    sizes = {n: checkpoint.weights[n].shape[1] for n in names} | {"lm_head.weight": checkpoint.config["hidden_size"]}
    return {n: np.exp(random.normal(size=size) * unevenness).astype(np.float32) for n, size in sizes.items()}
