"""python -m bench.cache_accuracy: what a KV cache in int8 costs, in perplexity of the bundled evaluation texts.

The model is computed in float32 by the NumPy reference; only rotated keys, and values, are rounded before they are attended to,
by scales that are fixed beforehand from the calibration texts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune_builder.checkpoint import Checkpoint, open_checkpoint
from triune_builder.verify import reference
from triune_builder.verify.texts import evaluation_ids, texts_of, token_ids

from .losses import token_losses

Array = NDArray[Any]
Change = Callable[[int, str, Array], Array]  # layer, key or value, [tokens, heads, dim] -> what is attended to


@contextmanager
def cached(change: Change, texts: int) -> Iterator[None]:
    """Have the reference attend to what `change` makes of keys and values, while it reads that many texts."""
    plain, calls = reference.attend, 0

    def attend(query: Array, key: Array, value: Array, window: int | None = None) -> Array:
        nonlocal calls
        layer, calls = calls // texts, calls + 1
        return plain(query, change(layer, "key", key), change(layer, "value", value), window)

    reference.attend = attend
    try:
        yield
    finally:
        reference.attend = plain


def losses(checkpoint: Checkpoint, windows: Sequence[Sequence[int]], change: Change) -> Array:
    """-log p of each of the windows' tokens."""
    with cached(change, len(windows)):
        found = token_losses(checkpoint.config, checkpoint.weights, windows)
    return np.array([loss for lost in found for loss in lost])


def largest(checkpoint: Checkpoint, *, pairs: bool = False) -> dict[tuple[int, str], Array]:
    """Largest |x| of every channel over the calibration texts, [heads, dim].

    Args:
        pairs: of keys, the largest length of the two numbers that are rotated together: no position makes more of either.
    """
    found: dict[tuple[int, str], Array] = {}

    def note(layer: int, part: str, x: Array) -> Array:
        sizes = np.abs(x)
        if pairs and part == "key":
            sizes = np.tile(np.hypot(*np.split(x, 2, -1)), 2)
        found[layer, part] = np.maximum(found.get((layer, part), 0), sizes.max(0))
        return x

    texts = token_ids(checkpoint.tokenizer_json, texts_of(checkpoint.verification).calibration)
    with cached(note, len(texts)):
        reference.final_states(checkpoint.config, reference.Scope(checkpoint.weights), texts)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cache_accuracy", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--window", type=int, default=256, help="tokens read from an empty cache, texts one after the other")
    parser.add_argument("--tokens", type=int, default=2048, help="of all texts together, at most")
    parser.add_argument("--headroom", type=float, nargs="+", default=[1.25], help="of scales over the largest that was seen")
    parser.add_argument("--cache", type=Path, default=Path("build/.cache/checkpoints"))
    asked = parser.parse_args()
    checkpoint = open_checkpoint(asked.model, cache=asked.cache)
    texts = evaluation_ids(checkpoint.tokenizer_json, texts_of(checkpoint.verification))
    ids = [token for _, text in texts for token in text[: asked.tokens // len(texts) + 1]]
    windows = [part for i in range(0, len(ids), asked.window) if len(part := ids[i : i + asked.window + 1]) > 1]
    each, pairs = largest(checkpoint), largest(checkpoint, pairs=True)
    if not each:
        parser.error(f"{asked.model} keeps no keys and values but a latent; choose a model with a key and value cache")
    plain = losses(checkpoint, windows, lambda layer, part, x: x)
    print(f"{len(plain)} tokens, perplexity {np.exp(plain.mean()):.3f} with the cache in float32")
    for kind, most, axes in (("a rotated pair", pairs, ()), ("a channel", each, ()), ("a tensor", each, (0, 1))):
        for headroom in asked.headroom:
            beyond = total = 0

            def change(
                layer: int, part: str, x: Array, most: Any = most, axes: Any = axes, headroom: float = headroom
            ) -> Array:
                nonlocal beyond, total
                step = most[layer, part].max(axes, keepdims=True) * headroom / 127
                codes = np.rint(x / step)
                beyond, total = beyond + int((np.abs(codes) > 127).sum()), total + x.size
                return np.asarray(np.clip(codes, -127, 127) * step, np.float32)

            more = losses(checkpoint, windows, change) - plain
            lost, error = np.expm1(more.mean()), more.std() / np.sqrt(len(more))
            saturated = f"{beyond / total:.1e} of the numbers saturate"
            print(
                f"a scale for {kind}, headroom x {headroom}: {lost:+.2%} (standard error {error:.2%}); {saturated}", flush=True
            )


if __name__ == "__main__":
    main()
