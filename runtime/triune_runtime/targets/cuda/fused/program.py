"""Steps of one token of each of a few sequences by the fused kernel, all others by the graph. Decides which, no more."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..protocols import StepBuffers, StepProgram, StepShape
from .decoder import FusedDecoder, StepAddresses
from .names import DecoderNames


class FusedProgram:
    """A `StepProgram` in front of another."""

    def __init__(
        self,
        graph: StepProgram,
        decoders: Mapping[int, FusedDecoder],
        names: DecoderNames,
        weights: Mapping[str, int],
        stream: int,
    ) -> None:
        """
        Args:
            decoders: by their numbers of sequences.
            weights: address of each initializer that `names` names.
        """
        self._graph, self._decoders, self._names, self._weights, self._stream = graph, decoders, names, weights, stream

    @property
    def replays(self) -> bool:
        """See `StepProgram.replays`."""
        return self._graph.replays

    def bind_cache(self, addresses: Mapping[str, int], blocks: int) -> None:
        """See `StepProgram.bind_cache`."""
        self._graph.bind_cache(addresses, blocks)
        located = self._names.locate(self._weights, addresses)
        for decoder in self._decoders.values():
            decoder.bind(located)

    def enqueue(self, buffers: StepBuffers, shape: StepShape, bounds: NDArray[np.int32], number: int | None = None) -> None:
        """See `StepProgram.enqueue`."""
        # As many tokens and rows as sequences: each has one of both, in order.
        decoder = self._decoders.get(shape.sequences) if shape.tokens == shape.sequences == shape.rows else None
        if decoder is None:
            self._graph.enqueue(buffers, shape, bounds, number)
            return
        at = StepAddresses(
            input_ids=buffers.input_ids,
            past_seqlens=buffers.past_seqlens,
            block_table=buffers.block_table,
            most_blocks=shape.width,
            logits=buffers.logits,
        )
        decoder.enqueue(self._stream, at)

    def close(self) -> None:
        """See `StepProgram.close`."""
        self._graph.close()
