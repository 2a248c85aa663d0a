"""`guides` as vLLM's logits processor, for the model runner that CPUs and older versions have (V1)."""

from __future__ import annotations

from typing import Any

from vllm.v1.sample.logits_processor import LogitsProcessor
from vllm.v1.sample.logits_processor.interface import MoveDirectionality

from .guides import EXTRA, Followed, forms, write


class Guides(LogitsProcessor):  # type: ignore[misc]  # whose package is in vLLM's environment alone
    """Rows of a batch that are followed, by their places in it. Created where tokens are sampled."""

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        self._rows: dict[int, Followed] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        """Who has left the batch, come to it, and moved in it: in this order."""
        if batch_update is None:
            return
        for place in batch_update.removed:
            self._rows.pop(place, None)
        for place, params, _, output in batch_update.added:
            self._rows.pop(place, None)
            if said := (params.extra_args or {}).get(EXTRA):
                self._rows[place] = Followed(forms().make(said), output)
        for one, other, direction in batch_update.moved:
            row, there = self._rows.pop(one, None), self._rows.pop(other, None)
            if row is not None:
                self._rows[other] = row
            if there is not None and direction == MoveDirectionality.SWAP:
                self._rows[one] = there

    def apply(self, logits: Any) -> Any:
        """Change the rows of logits [batch, vocabulary]. Only now all tokens are known: the last may have been on its way."""
        write([(row, logits[place]) for place, row in self._rows.items()])
        return logits
