"""`guides` as vLLM's logits processor, for the model runner that it has for GPUs (V2). It has not been run yet."""

from __future__ import annotations

from typing import Any

from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor

from .guides import EXTRA, Followed, forms, write


class Guides(LogitsProcessor):  # type: ignore[misc]  # whose package is in vLLM's environment alone
    """Requests that are followed, by their slots. What has been sampled lies on the device, and is fetched for each of them."""

    def __init__(self, vllm_config: Any, req_states: Any) -> None:
        self._states = req_states
        self._slots: dict[int, tuple[Followed, list[int]]] = {}

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Whether this request's logits are changed; the slot may have been another's."""
        self._slots.pop(req_idx, None)
        if said := (sampling_params.extra_args or {}).get(EXTRA):
            tokens: list[int] = []
            self._slots[req_idx] = Followed(forms().make(said), tokens), tokens
        return req_idx in self._slots

    def apply(self, logits: Any, ctx: Any) -> Any:
        """Change the rows of logits [rows, vocabulary]: one a request, as nothing is guessed ahead."""
        rows = []
        for row, slot in enumerate(ctx.idx_mapping_np.tolist()):
            if slot in self._slots:
                followed, tokens = self._slots[slot]
                start = int(self._states.prompt_len.np[slot]) + len(tokens)
                stop = int(ctx.pos[row]) + 1
                if stop > start:
                    tokens += self._states.all_token_ids.gpu[slot, start:stop].tolist()
                rows.append((followed, logits[row]))
        write(rows)
        return logits
