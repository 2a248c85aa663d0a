"""What engine.json says of an engine for ONNX Runtime CUDA, and how its graph is driven.

One graph runs whatever a step has: the tokens of all sequences lie one after the other (T tokens, B sequences, R rows of
logits).

| input | type, shape | |
|---|---|---|
| input_ids | int64 [T] | |
| cu_seqlens | int32 [B + 1] | where each sequence's tokens begin, and where the last one's end |
| past_seqlens | int32 [B] | tokens of each whose KV is there already |
| block_table | int32 [B, most blocks] | the blocks of each, in order; what lies beyond its length is not read |
| attention_metadata | int32 [3], host memory | most new tokens of a sequence, most tokens of one, fewest of the longest |
| logits_at | int64 [R] | the tokens, of the T, after which logits are made |
| past.NAME | the cache's type [blocks, block_tokens, heads, dim] | of each cache tensor of the manifest; written in place |

Its only output is `logits`, float32 [R, vocabulary].

A second graph may compute the same from the same inputs and weights, with custom ops of the domain `triune.ops`:

| op | inputs | outputs |
|---|---|---|
| SwiGLU | gate and up, of one shape; or one, whose rows begin with gate and end with up | silu(gate) * up |
| RotaryQKV | packed [T, (heads + 2 kv_heads) dim], cosines and sines [positions, dim / 2], cu_seqlens, past_seqlens | query |
| | if there are: bias, query_norm and key_norm [dim]; attributes num_heads, kv_num_heads, epsilon | key, value |

Both compute in float32, and round what they give.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ...errors import ManifestError
from ...manifest import EngineManifest

DTYPES = ("float16", "bfloat16")
FUSED_SWITCH = "TRIUNE_FUSED_DECODE"  # in the environment: "off" leaves every step to the graph
OPS_SWITCH = "TRIUNE_CUSTOM_OPS"  # likewise: "off" leaves a graph to ONNX Runtime's own ops


@dataclass(frozen=True, kw_only=True)
class CudaPlan:
    """How an engine for ONNX Runtime CUDA is driven."""

    dtype: str  # what it computes in, one of DTYPES
    block_tokens: int  # tokens of a block of its caches
    decoder: dict[str, Any] = dataclasses.field(default_factory=dict)  # which weights a dense decoder's are; empty: it is none
    custom_ops: str = ""  # the same graph with ops of Triune's own, beside the engine; empty: there is none

    def to_json(self) -> dict[str, Any]:
        """As a manifest holds it."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, manifest: EngineManifest) -> CudaPlan:
        """The plan of a manifest.

        Raises:
            ManifestError: it has none, or one that does not fit.
        """
        try:
            plan = cls(**manifest.plan)
        except TypeError as error:
            raise ManifestError(
                f"what engine.json says of CUDA does not fit this runtime: {error}", "build the engine again"
            ) from error
        if plan.dtype not in DTYPES or not isinstance(plan.block_tokens, int) or plan.block_tokens < 1:
            raise ManifestError(f"engine.json has the plan {manifest.plan!r}, which is none", "build the engine again")
        return plan
