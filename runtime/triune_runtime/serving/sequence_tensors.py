"""One sequence's chunks -> tensors: its text's place, counts, log probabilities and times."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..contracts.outputs import OF_CHUNK
from ..options.wire import Options
from ..request import Chunk, Request, TokenLogprob
from ..text.vocabulary import BytesOf, TokenBytes
from .tensors import Arrays, tensors

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
        self._scored = request.prompt[0] if request.prompt and request.params.prompt_logprobs is not None else None
        self._alone = len(request.prompt) == 1
        self._echoed = request.prompt if options.echo else ()
        self._echoed_bytes = len(token_bytes.join(self._echoed))
        self._token_bytes = token_bytes
        self._at_beginning = not request.continues  # no token with text has come yet

    def of(self, chunk: Chunk) -> Arrays:
        """The tensors of the next chunk."""
        self.logprob += sum(t.logprob for t in chunk.logprobs)
        arrays = chunk_arrays(chunk, key=self.key, prompt_tokens=0 if chunk.index else self.prompt_tokens)
        cut = chunk.cut
        if self._vllm:
            arrays |= tensors({"finish_reason": vllm_reason(chunk.finish_reason)})
        if self._separate:
            thought, answer = cut.border or (cut.byte_start, cut.byte_start)
            apart = (answer, cut.byte_stop, cut.byte_start, thought)
            arrays |= tensors({"byte_range": apart, "num_reasoning_tokens": cut.reasoning_tokens})
        if self._tool_format and chunk.index == 0:
            arrays |= tensors({"tool_format": self._tool_format})
        if chunk.logprobs:
            arrays |= tensors({
                "logprobs": _entries(chunk.logprobs, self._bytes_of(chunk.logprobs), vllm=self._vllm),
                "output_log_probs": [[t.logprob for t in chunk.logprobs]],
                "cum_log_probs": self.logprob,
            })  # fmt: skip
        if self._scored is not None and (chunk.scores or (self._alone and not chunk.index)):
            arrays |= tensors({"prompt_logprobs": self._scores(self._scored, chunk.scores)})
        if self._echoed:  # one chunk only: an echo is refused with streams
            tokens = self._echoed + cut.token_ids
            whole = (self._token_bytes.dropped(tokens), self._echoed_bytes + cut.byte_stop)
            arrays |= tensors({"token_ids": tokens, "byte_range": whole})
        return arrays

    def _scores(self, begin: int, scores: Sequence[TokenLogprob]) -> str:
        """Those of the prompt as JSON: its first token, `begin`, has none."""
        bytes_of = self._token_bytes.in_order((begin, *(t.token_id for t in scores)))
        first = None if self._vllm else {"token_id": begin, "bytes": list(bytes_of[0](begin))}
        others = _listed(scores, bytes_of[1:], vllm=self._vllm)
        return json.dumps([first, *others], separators=(",", ":"))

    def _bytes_of(self, tokens: Sequence[TokenLogprob]) -> list[BytesOf]:
        """What gives the bytes of each token and of those that might have stood in its place."""
        found = self._token_bytes.in_order([t.token_id for t in tokens], at_beginning=self._at_beginning)
        self._at_beginning = self._at_beginning and not any(self._token_bytes[t.token_id] for t in tokens)
        return found


def vllm_reason(reason: str | None) -> str:
    """vLLM's word for why a sequence has ended, or has not yet."""
    return _VLLM_REASONS.get(reason, reason or "")


def chunk_arrays(chunk: Chunk, *, key: int, prompt_tokens: int) -> Arrays:
    """The tensors of a chunk; its counts are of this chunk alone, so that they add up."""
    told = {output.name: value for output, of in OF_CHUNK if (value := of(chunk)) is not None}
    places = (chunk.cut.byte_start, chunk.cut.byte_stop)
    return tensors(told | {"byte_range": places, "request_key": key, "num_input_tokens": prompt_tokens})


def byte_ranges(arrays: Arrays) -> list[int]:
    """The four numbers of one sequence's text and thinking."""
    found = [int(n) for n in arrays["byte_range"]]
    return found if len(found) == 4 else [*found, *NOT_APART]


def _entries(tokens: Sequence[TokenLogprob], bytes_of: Sequence[BytesOf], *, vllm: bool) -> str:
    """Log probabilities as JSON."""
    return json.dumps(_listed(tokens, bytes_of, vllm=vllm), separators=(",", ":"))


def _listed(tokens: Sequence[TokenLogprob], bytes_of: Sequence[BytesOf], *, vllm: bool) -> list[dict[str, Any]]:
    """With each token's bytes: its text may be part of a character."""
    return _vllm_entries(tokens, bytes_of) if vllm else [
        {
            "token_id": t.token_id, "logprob": t.logprob, "bytes": list(of(t.token_id)),
            "top": t.top, "top_bytes": [list(of(token)) for token, _ in t.top],
            **({} if t.rank is None else {"rank": t.rank}),
        }
        for t, of in zip(tokens, bytes_of, strict=True)
    ]  # fmt: skip


def _vllm_entries(tokens: Sequence[TokenLogprob], bytes_of: Sequence[BytesOf]) -> list[dict[str, Any]]:
    """As vLLM's backend gives them; the rank of a chosen token that is not among the best is not known."""

    def entry(of: BytesOf, token: int, logprob: float, rank: int | None) -> dict[str, Any]:
        return {"logprob": logprob, "rank": rank, "decoded_token": of(token).decode("utf-8", "replace")}

    return [
        {str(t.token_id): entry(of, t.token_id, t.logprob, t.rank)}
        | {str(token): entry(of, token, logprob, rank) for rank, (token, logprob) in enumerate(t.top, 1)}
        for t, of in zip(tokens, bytes_of, strict=True)
    ]
