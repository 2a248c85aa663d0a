"""What is asked of an answer. Names and limits are those of vLLM 0.32."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import Enum
from typing import Any

DIES, HANGS, REFUSES, ENDS = TRIGGERS = (
    7,
    8,
    9,
    10,
)  # first tokens: of prompts at which it dies, makes no step, refuses, ends badly


class RequestOutputKind(Enum):
    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclass
class SamplingParams:
    """See vLLM's."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logit_bias: dict[int, float] | None = None
    extra_args: dict[str, Any] | None = None
    detokenize: bool = True
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE

    def __post_init__(self) -> None:
        self._bad_words_token_ids: list[list[int]] | None = None
        if not 0 <= self.temperature <= 2 or not 0 < self.top_p <= 1 or not 0 <= self.min_p <= 1:
            raise ValueError(f"out of range: {dataclasses.asdict(self)}")
        if abs(self.presence_penalty) > 2 or abs(self.frequency_penalty) > 2 or self.min_tokens > self.max_tokens:
            raise ValueError(f"out of range: {dataclasses.asdict(self)}")
        if self.seed == -1 or not -(1 << 63) <= (self.seed or 0) < 1 << 63:
            raise ValueError(f"seed {self.seed} is none, or does not fit")
        assert all(type(token) is int for token in self.logit_bias or {}), self.logit_bias
