"""One sequence's chunks -> tensors: its text's place, counts, log probabilities and times."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..options.wire import Options
from ..request import Chunk, KvCounts, Request, Times, TokenLogprob
from ..text.vocabulary import TokenBytes
from .tensors import Arrays, strings

NOT_APART = (-1, -1)  # in place of the thinking's range, where thinking is not kept apart
_VLLM_REASONS = {None: "None", "cancelled": "abort", "deadline": "abort"}


class SequenceTensors:
    """What is known of one sequence while its chunks go out."""

    def __init__(self, request: Request, options: Options, token_bytes: TokenBytes, *, first: bool) -> None:
        """
        Args:
            first: of those that share a prompt: the prompt's tokens are counted once.
        """
        self.key = request.key
        self.logprob = 0.0  # of all tokens so far
        self.prompt_tokens = len(request.prompt) if first else 0
        self._separate = request.separate_reasoning
        self._vllm = options.vllm
        self._tool_format = options.tool_format
        self._echoed = request.prompt if options.echo else ()
        self._echoed_bytes = len(token_bytes.join(self._echoed))
        self._token_bytes = token_bytes

    def of(self, chunk: Chunk) -> Arrays:
        """The tensors of the next chunk."""
        self.logprob += sum(t.logprob for t in chunk.logprobs)
        arrays = chunk_arrays(chunk, key=self.key, prompt_tokens=0 if chunk.index else self.prompt_tokens)
        if self._vllm:
            arrays["finish_reason"] = strings(vllm_reason(chunk.finish_reason))
        if self._separate:
            thought, answer = chunk.cut.border or (chunk.cut.byte_start, chunk.cut.byte_start)
            arrays["byte_range"] = np.array([answer, chunk.cut.byte_stop, chunk.cut.byte_start, thought], np.int32)
            arrays["num_reasoning_tokens"] = np.array([chunk.cut.reasoning_tokens], np.uint32)
        if self._tool_format and chunk.index == 0:
            arrays["tool_format"] = strings(self._tool_format)
        if chunk.logprobs:
            arrays |= _logprob_arrays(chunk.logprobs, self._token_bytes, vllm=self._vllm)
            arrays["cum_log_probs"] = np.array([self.logprob], np.float32)
        if chunk.times is not None:
            arrays |= _time_arrays(chunk.times) | _kv_arrays(chunk.kv) | _draft_arrays(chunk.drafted, chunk.accepted)
        if self._echoed:  # one chunk only: an echo is refused with streams
            arrays["token_ids"] = np.concatenate([np.array(self._echoed, np.int32), arrays["token_ids"]])
            arrays["byte_range"] = np.array([0, self._echoed_bytes + chunk.cut.byte_stop], np.int32)
        return arrays


def vllm_reason(reason: str | None) -> str:
    """vLLM's word for why a sequence has ended, or has not yet."""
    return _VLLM_REASONS.get(reason, reason or "")


def chunk_arrays(chunk: Chunk, *, key: int, prompt_tokens: int) -> Arrays:
    """The tensors of a chunk; its counts are of this chunk alone, so that they add up."""
    arrays: Arrays = {
        "token_ids": np.array(chunk.cut.token_ids, np.int32),
        "byte_range": np.array([chunk.cut.byte_start, chunk.cut.byte_stop], np.int32),
        "request_key": np.array([key], np.int64),
        "chunk_index": np.array([chunk.index], np.int32),
        "finish_reason": strings(chunk.finish_reason or ""),
        "num_input_tokens": np.array([prompt_tokens], np.uint32),
        "num_output_tokens": np.array([chunk.new_tokens], np.uint32),
    }
    # What few read is sent only where it says something: every tensor of a response costs the server some 20 µs.
    if chunk.cut.stop_reason:
        arrays["stop_reason"] = strings(chunk.cut.stop_reason)
    if chunk.drafted:
        arrays |= _draft_arrays(chunk.drafted, chunk.accepted)
    return arrays


def byte_ranges(arrays: Arrays) -> list[int]:
    """The four numbers of one sequence's text and thinking."""
    found = [int(n) for n in arrays["byte_range"]]
    return found if len(found) == 4 else [*found, *NOT_APART]


def _logprob_arrays(tokens: Sequence[TokenLogprob], token_bytes: TokenBytes, *, vllm: bool) -> Arrays:
    """Log probabilities as JSON, with each token's bytes (its text may be part of a character), and as numbers."""
    entries = _vllm_entries(tokens, token_bytes) if vllm else [
        {
            "token_id": t.token_id, "logprob": t.logprob, "bytes": list(token_bytes[t.token_id]),
            "top": t.top, "top_bytes": [list(token_bytes[token]) for token, _ in t.top],
        }
        for t in tokens
    ]  # fmt: skip
    return {
        "logprobs": strings(json.dumps(entries, separators=(",", ":"))),
        "output_log_probs": np.array([[t.logprob for t in tokens]], np.float32),
    }


def _vllm_entries(tokens: Sequence[TokenLogprob], token_bytes: TokenBytes) -> list[dict[str, Any]]:
    """As vLLM's backend gives them; the rank of a chosen token that is not among the best is not known."""

    def entry(token: int, logprob: float, rank: int | None) -> dict[str, Any]:
        return {"logprob": logprob, "rank": rank, "decoded_token": token_bytes[token].decode("utf-8", "replace")}

    return [
        {str(t.token_id): entry(t.token_id, t.logprob, None)}
        | {str(token): entry(token, logprob, rank) for rank, (token, logprob) in enumerate(t.top, 1)}
        for t in tokens
    ]


def _time_arrays(times: Times) -> Arrays:
    """Of TensorRT-LLM's names, each [1, 1], of the monotonic clock."""

    def when(seconds: float | None) -> NDArray[np.int64]:
        return np.array([[int((seconds or 0.0) * 1e9)]], np.int64)

    return {
        "arrival_time_ns": when(times.arrived),
        "first_scheduled_time_ns": when(times.scheduled),
        "first_token_time_ns": when(times.first),
        "last_token_time_ns": when(times.latest),
    }


def _kv_arrays(kv: KvCounts) -> Arrays:
    """Of TensorRT-LLM's names, each [1, 1]. Its total is of blocks taken from memory: those reused are not among them."""
    return {
        "kv_cache_alloc_new_blocks": np.array([[kv.new_blocks]], np.int32),
        "kv_cache_reused_blocks": np.array([[kv.reused_blocks]], np.int32),
        "kv_cache_alloc_total_blocks": np.array([[kv.new_blocks]], np.int32),
    }


def _draft_arrays(drafted: int, accepted: int) -> Arrays:
    """Of TensorRT-LLM's names, each [1, 1]: guesses ahead over the whole answer, known with its last chunk."""
    return {
        "acceptance_rate": np.array([[accepted / max(drafted, 1)]], np.float32),
        "total_accepted_draft_tokens": np.array([[accepted]], np.int32),
        "total_draft_tokens": np.array([[drafted]], np.int32),
    }
