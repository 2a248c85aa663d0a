"""Steps of one token of each of a few sequences by the fused kernel, all others by the graph. Decides which, no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .decoder import FusedDecoder, StepAddresses
from .names import DecoderNames


class Buffers(Protocol):
    """Where a step's inputs and its output lie, of those that the kernel reads."""

    @property
    def input_ids(self) -> int: ...
    @property
    def past_seqlens(self) -> int: ...
    @property
    def block_table(self) -> int: ...
    @property
    def logits(self) -> int: ...


class Counts(Protocol):
    """How much a step has."""

    @property
    def tokens(self) -> int: ...
    @property
    def sequences(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def width(self) -> int: ...


class Graph(Protocol):
    """What computes any step: see `StepProgram`."""

    @property
    def replays(self) -> bool: ...
    def bind_cache(self, addresses: Mapping[str, int], blocks: int) -> None: ...
    def enqueue(self, buffers: Any, shape: Any, bounds: NDArray[np.int32], number: int | None = None) -> None: ...
    def close(self) -> None: ...


class FusedProgram:
    """A `StepProgram` in front of another."""

    def __init__(
        self, graph: Graph, decoders: Mapping[int, FusedDecoder], names: DecoderNames, weights: Mapping[str, int], stream: int
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

    def enqueue(self, buffers: Buffers, shape: Counts, bounds: NDArray[np.int32], number: int | None = None) -> None:
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
