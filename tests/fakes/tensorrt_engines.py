"""Tiny checkpoints lowered for TensorRT, parsed by TensorRT-RTX, and computed by the interpreter; no GPU, no engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triune_builder.graph import arch
from triune_builder.graph.export import GraphBundle, export
from triune_builder.quantize.apply import quantize
from triune_builder.targets import onnx_files
from triune_builder.targets.tensorrt import adapter, graph_files
from triune_builder.targets.tensorrt.adapter import Network, Shapes
from triune_builder.targets.tensorrt.compiling import make_network_runner
from triune_builder.targets.tensorrt.lowering import capacity, lower
from triune_builder.targets.tensorrt.network_runner import NetworkRunner
from triune_builder.targets.tensorrt.precisions import PRECISIONS
from triune_runtime.manifest import EngineManifest, Limits
from triune_runtime.targets.device.plan import Profile
from triune_runtime.targets.tensorrt.plan import TensorRtPlan

from . import tiny_deepseek
from .tiny_dense import dense_checkpoint
from .tiny_llama import FakeCheckpoint

LENGTH = 64
LIMITS = Limits(max_sequences=4, max_length=LENGTH, prefill_chunk=16)
ARCHITECTURES = tuple(arch.ARCHITECTURES)
RTX = adapter.RTX


def tiny(architecture: str, **changes: Any) -> FakeCheckpoint:
    """A checkpoint of sizes that blocks of 32 divide."""
    if architecture == "deepseek_v3":
        return tiny_deepseek.tiny_checkpoint(**({"q_lora_rank": 32, "v_head_dim": 16} | changes))
    return dense_checkpoint(architecture, **({"hidden_size": 64, "intermediate_size": 96} | changes))


def quantized(checkpoint: FakeCheckpoint, precision: str) -> GraphBundle:
    """The graph before it is lowered: the definition of what the engine is to compute."""
    bundle = export(checkpoint, max_length=LENGTH)  # type: ignore[arg-type]  # a fake
    return quantize(bundle, PRECISIONS[precision].weights).bundle


@dataclass(frozen=True)
class Lowered:
    """A lowered graph on disk, and its manifest."""

    graph: Path
    bundle: GraphBundle
    manifest: EngineManifest

    def parse(self) -> Network:
        return graph_files.parse(adapter.load(RTX), self.graph)

    def runner(self) -> NetworkRunner:
        return make_network_runner(self.graph, self.manifest)

    def shapes(self, limits: Limits = LIMITS) -> list[Shapes]:
        return [
            graph_files.shapes(ranges, self.bundle.cache, capacity(LENGTH)) for ranges in graph_files.profiles(limits).values()
        ]


def lowered(checkpoint: FakeCheckpoint, precision: str, folder: Path) -> Lowered:
    """Lower `checkpoint` and write it into `folder`."""
    bundle = lower(quantized(checkpoint, precision), max_length=LENGTH, dtype=PRECISIONS[precision].dtype)
    onnx_files.write(bundle, folder)
    profiles = tuple(Profile(name=name, **ranges) for name, ranges in graph_files.profiles(LIMITS).items())
    plan = TensorRtPlan(
        flavour=RTX,
        version="",
        compute_capabilities=(),
        capacity=capacity(LENGTH),
        profiles=profiles,
        plan_bytes=0,
        plan_sha256="",
        best_tokens=True,
    )
    manifest = EngineManifest(
        model="tiny", architecture=bundle.architecture, target="tensorrt", precision=precision, engine=graph_files.PLAN,
        vocab_size=bundle.vocab_size, cache=bundle.cache, stop_token_ids=(0,), limits=LIMITS, plan=plan.to_json(),
    )  # fmt: skip
    return Lowered(folder / graph_files.GRAPH, bundle, manifest)


Step = tuple[int, list[list[int]], list[int]]  # first slot, new tokens of each, tokens held


def steps(tokens: Sequence[int]) -> list[Step]:
    """Prompts of three lengths, a further chunk, then two decoding steps of all three as a batch."""
    t = list(tokens)
    return [
        (0, [t[:10]], [0]),
        (0, [t[10:15]], [10]),
        (1, [t[5:9]], [0]),
        (2, [t[2:9]], [0]),
        (0, [[t[15]], [t[9]], [t[9]]], [15, 4, 7]),
        (0, [[t[16]], [t[10]], [t[10]]], [16, 5, 8]),
    ]


def history(tokens: Sequence[int], step: Step) -> list[list[int]]:
    """All that each sequence of a step of `steps` has read after it."""
    begin = {0: 0, 1: 5, 2: 2}  # where each slot's text starts
    first, new, held = step
    return [
        list(tokens[begin[first + i] : begin[first + i] + n + len(ids)])
        for i, (ids, n) in enumerate(zip(new, held, strict=True))
    ]
