"""What an engine for the CPU tells its runner besides the manifest."""

from __future__ import annotations

from ...manifest import EngineManifest

HEADS = "attention_heads"  # in `plan`: queries that a token has in a layer; engines of older builds do not say
_SCORE_BYTES, _MOST_SCORES = 4, 512 << 20  # bytes of a score; of those that attention without tiles may hold at once


def computes_in_tiles(manifest: EngineManifest, threads: int) -> bool:
    """Whether attention is to work in tiles, with that many threads.

    Of more threads than a step has heads, ONNX Runtime lets several share the tiles of one sequence, and adds up what they
    found in another order than a single one does: then the sequence's last bits are others alone than among others. And where
    all heads read the same keys, tiles read them once for each head. Without tiles bits are the same and keys are read once,
    but all scores of a chunk are in memory at once.
    """
    heads, limits = manifest.plan.get(HEADS), manifest.limits
    if heads is None or heads * limits.prefill_chunk * limits.max_length * _SCORE_BYTES > _MOST_SCORES:
        return True
    return bool(threads <= heads and any(tensor.heads > 1 for tensor in manifest.cache))
