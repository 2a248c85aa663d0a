"""Every tensor of a response, and what of a chunk it says. To add a response field, add it to `Chunk` and a row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

from ..request import Chunk, Times


@dataclass(frozen=True)
class Output:
    """A tensor of a response."""

    name: str
    type: str
    dims: tuple[int, ...]  # (1,): of the response; (-1, ...): an element for each sequence
    says: str
    _: KW_ONLY
    of: Callable[[Chunk], Any] | None = (
        None  # what it says of a chunk, None: it is not sent; without: see `sequence_tensors.py`
    )
    idle: int | str | None = None  # vLLM's contract: what a sequence without news has; None: it is not asked
    step: str = "generate"  # whose output it is
    inner: bool = False  # for the next step only


def _timed(value: Callable[[Chunk], Any]) -> Callable[[Chunk], Any]:
    """Sent where `return_perf_metrics` asks for it."""
    return lambda chunk: None if chunk.times is None else value(chunk)


def _drafts(value: Callable[[Chunk], Any]) -> Callable[[Chunk], Any]:
    """Sent where it is asked for, or where there were any."""
    return lambda chunk: value(chunk) if chunk.drafted or chunk.times is not None else None


def _when(time: Callable[[Times], float | None]) -> Callable[[Chunk], Any]:
    """In nanoseconds, 0 for what has not happened yet."""
    return lambda chunk: None if chunk.times is None else int((time(chunk.times) or 0.0) * 1e9)


# What few read is sent only where it says something: every tensor of a response costs the server some 20 µs.
OUTPUTS: Mapping[str, Output] = {one.name: one for one in (
    Output("text_output", "STRING", (-1,), "the answer, or the piece of it", step="detokenize"),
    Output("reasoning_output", "STRING", (-1,), "the thinking before it, where that is kept apart", step="detokenize"),
    Output("token_ids", "INT32", (-1,), "the tokens that cover the text", of=lambda c: c.cut.token_ids, inner=True),
    Output("byte_range", "INT32", (-1,), "the text in the tokens' bytes, and the thinking", inner=True),
    Output("finish_reason", "STRING", (-1,), "why the answer ended: stop, length, cancelled, deadline; empty before",
           of=lambda c: c.finish_reason or ""),
    Output("stop_reason", "STRING", (-1,), "the stop string that ended the answer", of=lambda c: c.cut.stop_reason),
    Output("tool_format", "STRING", (-1,), "how the model writes calls; in the first response, where tools were sent"),
    Output("num_input_tokens", "UINT32", (1,), "tokens of the prompt; in the first response, 0 in the others"),
    Output("num_cached_tokens", "UINT32", (1,), "those of them that were found computed; in the first response, if any were",
           of=lambda c: c.kv.reused_tokens or None if c.index == 0 else None),
    Output("num_output_tokens", "UINT32", (-1,), "tokens of this response", of=lambda c: c.new_tokens, idle=0),
    Output("num_reasoning_tokens", "UINT32", (-1,), "those of them that are thinking, where it is kept apart", idle=0),
    Output("chunk_index", "INT32", (1,), "0, 1, 2, ... in an answer", of=lambda c: c.index),
    Output("request_key", "INT64", (1,), "the server's own number of the request"),
    Output("logprobs", "STRING", (-1,), "JSON: an entry for each token, where asked for", idle="[]"),
    Output("prompt_logprobs", "STRING", (-1,), "the same for the prompt's tokens, in the first response", idle=""),
    Output("cum_log_probs", "FP32", (-1,), "log probability of all tokens so far, where asked for"),
    Output("output_log_probs", "FP32", (-1, -1), "log probabilities of the tokens, where asked for"),
    Output("batch_index", "INT32", (1, 1), "the row of the request"),
    Output("sequence_index", "INT32", (-1, 1), "the answer, of several to one prompt"),
    Output("arrival_time_ns", "INT64", (-1, 1), "when the request came", of=_when(lambda t: t.arrived)),
    Output("first_scheduled_time_ns", "INT64", (-1, 1), "when its first step began", of=_when(lambda t: t.scheduled)),
    Output("first_token_time_ns", "INT64", (-1, 1), "when its first token came", of=_when(lambda t: t.first)),
    Output("last_token_time_ns", "INT64", (-1, 1), "when its latest token came", of=_when(lambda t: t.latest)),
    Output("kv_cache_alloc_new_blocks", "INT32", (-1, 1), "KV blocks it took", of=_timed(lambda c: c.kv.new_blocks)),
    Output("kv_cache_reused_blocks", "INT32", (-1, 1), "blocks it found computed", of=_timed(lambda c: c.kv.reused_blocks)),
    Output("kv_cache_alloc_total_blocks", "INT32", (-1, 1), "blocks it took in all", of=_timed(lambda c: c.kv.new_blocks)),
    Output("acceptance_rate", "FP32", (-1, 1), "guesses that were right", of=_drafts(lambda c: c.accepted / max(c.drafted, 1))),
    Output("total_accepted_draft_tokens", "INT32", (-1, 1), "how many those are", of=_drafts(lambda c: c.accepted)),
    Output("total_draft_tokens", "INT32", (-1, 1), "of how many guesses", of=_drafts(lambda c: c.drafted)),
)}  # fmt: skip
OF_CHUNK = tuple((one, one.of) for one in OUTPUTS.values() if one.of is not None)
# What tokenize says of a prompt where it is asked for, besides what generate needs: name -> type and shape.
DESCRIBED: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "tokens": ("STRING", (-1,)),  # as the vocabulary has them
    "text": ("STRING", (1,)),  # that the tokens make together, special ones included
    "shown_text": ("STRING", (1,)),  # the same as answers have it: special tokens have no text
    "max_length": ("INT32", (1,)),  # most tokens of a prompt and its answer together
}
