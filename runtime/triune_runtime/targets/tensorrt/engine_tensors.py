"""The inputs and outputs that an engine with slots must have, from its manifest. docs/tensorrt.md says what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...errors import ManifestError
from ...manifest import EngineManifest
from ..device.plan import Profile
from ..device.stored import StoredWeight
from .plan import TensorRtPlan

_WEIGHTS = {"float16": "HALF", "float": "FLOAT"}  # ONNX's names, in lower case, -> TensorRT's
_CACHE = {"float16": "HALF", "bfloat16": "BF16", "float32": "FLOAT"}  # NumPy's names -> TensorRT's


@dataclass(frozen=True)
class EngineTensor:
    """An input or output as TensorRT describes it; -1 stands for a size that varies."""

    mode: str  # INPUT or OUTPUT
    dtype: str  # TensorRT's name: INT64, HALF, BF16, FLOAT
    shape: tuple[int, ...]
    same_memory_as: str | None = None  # the input that an output must share its memory with

    def __str__(self) -> str:
        shared = f" in the memory of {self.same_memory_as}" if self.same_memory_as else ""
        return f"{self.mode} {self.dtype} {list(self.shape)}{shared}"


def expected_tensors(manifest: EngineManifest, plan: TensorRtPlan) -> dict[str, EngineTensor]:
    """Name -> description of every input and output."""
    tensors = {
        "input_ids": EngineTensor("INPUT", "INT64", (-1, -1)),
        "positions": EngineTensor("INPUT", "INT64", (-1, -1)),
        "starts": EngineTensor("INPUT", "INT64", (-1,)),
        "logit_positions": EngineTensor("INPUT", "INT64", (-1,)),
        "logits": EngineTensor("OUTPUT", "FLOAT", (-1, -1, manifest.vocab_size)),
    }
    if plan.best_tokens:
        tensors["best_tokens"] = EngineTensor("OUTPUT", "INT64", (-1, -1))
        tensors["best_logits"] = EngineTensor("OUTPUT", "FLOAT", (-1, -1))
    for c in manifest.cache:
        shape = (-1, c.heads, plan.capacity, c.dim)
        tensors[f"past.{c.name}"] = EngineTensor("INPUT", _CACHE[c.dtype], shape)
        tensors[f"present.{c.name}"] = EngineTensor("OUTPUT", _CACHE[c.dtype], shape, f"past.{c.name}")
    return tensors


def expected_classic(
    manifest: EngineManifest, plan: TensorRtPlan, profile: Profile, weights: Sequence[StoredWeight]
) -> dict[str, EngineTensor]:
    """The same of an engine of fixed sizes: that of one profile."""
    batch, tokens, logits = profile.batch[0], profile.tokens[0], profile.logits[0]
    rows = batch * logits
    tensors = {name: EngineTensor("INPUT", "INT32", (batch, tokens)) for name in ("input_ids", "positions")}
    if tokens == 1:
        tensors["sequences"] = EngineTensor("INPUT", "INT32", (batch,))
    else:
        tensors["logit_positions"] = EngineTensor("INPUT", "INT32", (logits,))
    tensors["logits"] = EngineTensor("OUTPUT", "FLOAT", (rows, manifest.vocab_size))
    if plan.best_tokens:
        tensors["best_tokens"] = EngineTensor("OUTPUT", "INT32", (rows,))
        tensors["best_logits"] = EngineTensor("OUTPUT", "FLOAT", (rows,))
    for c in manifest.cache:
        shape = (batch, c.heads, plan.capacity, c.dim)
        tensors[f"past.{c.name}"] = EngineTensor("INPUT", _CACHE[c.dtype], shape)
        tensors[f"present.{c.name}"] = EngineTensor("OUTPUT", _CACHE[c.dtype], shape)
    return tensors | {w.name: EngineTensor("INPUT", _WEIGHTS[w.dtype], w.shape) for w in weights}


def check_tensors(found: Mapping[str, EngineTensor], expected: Mapping[str, EngineTensor], engine: str) -> None:
    """Make sure that an engine has exactly these inputs and outputs.

    Raises:
        ManifestError: names the first that is missing, spare or different.
    """
    for name in sorted(found.keys() | expected.keys()):
        has, wanted = found.get(name), expected.get(name)
        if has != wanted:
            raise ManifestError(
                f"{engine} has {name} as {has or 'nothing'}; engine.json makes it {wanted or 'nothing'}",
                "build the engine again",
            )
