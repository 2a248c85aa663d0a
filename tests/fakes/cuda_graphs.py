"""Tiny checkpoints lowered for CUDA, and their graphs computed by the interpreter; no GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triune_builder.graph import arch
from triune_builder.graph.export import GraphBundle, export
from triune_builder.graph.promises import settled_config
from triune_builder.quantize.apply import quantize
from triune_builder.targets import onnx_files
from triune_builder.targets.cuda.compiling import make_network_runner, read_by_the_gpu
from triune_builder.targets.cuda.decoder import dense_decoder
from triune_builder.targets.cuda.kernels import block_tokens
from triune_builder.targets.cuda.lowering import lower
from triune_builder.targets.cuda.network_runner import Item, NetworkRunner
from triune_builder.targets.cuda.own_ops import write_own_ops
from triune_builder.targets.cuda.precisions import PRECISIONS
from triune_builder.targets.onnx_weights import stored_weights
from triune_runtime.manifest import EngineManifest, Limits
from triune_runtime.targets.cuda.plan import CudaPlan
from triune_runtime.targets.device.stored import save_weights

from . import tiny_deepseek
from .tiny_dense import dense_checkpoint
from .tiny_llama import FakeCheckpoint

LENGTH = 64
LIMITS = Limits(max_sequences=4, max_length=LENGTH, prefill_chunk=16)
ARCHITECTURES = tuple(arch.ARCHITECTURES)
_LATENT = {"q_lora_rank": 32, "kv_lora_rank": 32, "qk_rope_head_dim": 16, "v_head_dim": 16}


def tiny(architecture: str, **changes: Any) -> FakeCheckpoint:
    """A checkpoint of sizes that the op for attention and blocks of 32 take."""
    if architecture == "deepseek_v3":
        return tiny_deepseek.tiny_checkpoint(**(_LATENT | changes))
    return dense_checkpoint(architecture, **({"hidden_size": 64, "intermediate_size": 96} | changes))


def quantized(checkpoint: Any, precision: str, length: int = LENGTH) -> GraphBundle:
    """The graph before it is lowered: the definition of what the engine is to compute."""
    return quantize(export(checkpoint, max_length=length), PRECISIONS[precision].weights).bundle


@dataclass(frozen=True)
class Lowered:
    """A lowered graph on disk, and its manifest."""

    folder: Path
    bundle: GraphBundle
    manifest: EngineManifest

    def runner(self, *, own_ops: bool = False) -> NetworkRunner:
        return make_network_runner(self.folder, self.manifest, CudaPlan.of(self.manifest).custom_ops if own_ops else "")


def lowered(checkpoint: Any, precision: str, folder: Path, *, length: int = LENGTH) -> Lowered:
    """Lower `checkpoint` and write it into `folder`."""
    row = PRECISIONS[precision]
    bundle = lower(quantized(checkpoint, precision, length), dtype=row.dtype, cache=row.cache)
    onnx_files.write(bundle, folder, outside=read_by_the_gpu)
    own = write_own_ops(folder / onnx_files.MODEL).name
    save_weights(stored_weights(folder / onnx_files.MODEL), folder)
    size = block_tokens(c.dim for c in bundle.cache)
    _, cfg = settled_config(checkpoint.config, checkpoint.weights.keys())
    plan = CudaPlan(dtype=row.dtype, block_tokens=size, decoder=dense_decoder(cfg, bundle, row, size), custom_ops=own)
    manifest = EngineManifest(
        model="tiny", architecture=bundle.architecture, target="cuda", precision=precision, engine=onnx_files.MODEL,
        vocab_size=bundle.vocab_size, cache=bundle.cache, stop_token_ids=(0,), limits=LIMITS, plan=plan.to_json(),
    )  # fmt: skip
    return Lowered(folder, bundle, manifest)


def steps(tokens: Sequence[int]) -> list[list[Item]]:
    """Packed prompts of three lengths, a chunk beside decoding and a new prompt, then ragged decoding; six drafts at last."""
    t = tuple(tokens)
    return [
        [Item(0, 0, t[:20]), Item(1, 0, t[5:9]), Item(2, 0, t[2:9])],
        [Item(0, 20, t[20:33]), Item(2, 7, t[9:10]), Item(3, 0, t[1:2]), Item(1, 4, t[9:10])],
        [Item(3, 1, t[2:3]), Item(0, 33, t[33:34]), Item(1, 5, t[10:11]), Item(2, 8, t[10:11])],
        [Item(0, 34, t[34:38]), Item(1, 6, t[11:13]), Item(3, 2, t[3:4])],
    ]


BEGIN: Mapping[int, int] = {0: 0, 1: 5, 2: 2, 3: 1}  # of `tokens`, where each lane's text starts


def history(tokens: Sequence[int], item: Item) -> list[int]:
    """All that a sequence of a step of `steps` has read after it."""
    begin = BEGIN[item.lane]
    return list(tokens[begin : begin + item.start + len(item.tokens)])
