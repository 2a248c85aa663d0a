"""What OpenAI's clients may ask for and this server does not do: refused by name, never ignored.

A value that asks for what happens anyway (no functions, plain text) is welcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from .errors import not_supported, shown
from .schemas import Generation

Unserved = Mapping[str, tuple[tuple[Any, ...], str]]  # field -> the values that change nothing, and why any other is refused


_ONE = "an answer is drawn token by token, not searched for"
_TEXT = "special tokens have no text in an answer"
_PLAIN: Unserved = {
    "use_beam_search": ((False,), _ONE),
    "early_stopping": ((False,), _ONE),
    "length_penalty": ((0, 0.0, 1, 1.0), _ONE),
    "priority": ((0,), "requests are served in the order in which they come"),
    "skip_special_tokens": ((True,), _TEXT),
    "spaces_between_special_tokens": ((True, False), _TEXT),
    "include_stop_str_in_output": ((False,), "a stop string is no part of the answer"),
    "detokenize": ((True,), "answers are text"),
    "allowed_token_ids": ((), "structured_outputs says what an answer may look like"),
    "truncate_prompt_tokens": ((), "a prompt is sent to the model whole, or refused"),
    "logits_processors": (([],), "this server runs no code of its clients"),
    "prompt_embeds": ((), "prompts are text or token ids"),
    "guided_whitespace_pattern": ((), "white space in JSON is a line break with its indentation, or a space"),
    "return_token_ids": ((False,), "logprobs with return_tokens_as_token_ids has them, and /tokenize those of the prompt"),
    "vllm_xargs": (({},), "it has no such arguments"),
    "kv_transfer_params": (({},), "it computes every prompt itself"),
    "ec_transfer_params": (({},), "it computes every prompt itself"),
    "mm_processor_kwargs": (({},), "it reads and writes text only"),
    "repetition_detection": ((), "repetition_penalty, presence_penalty and frequency_penalty are served"),
}  # of vLLM's, on every endpoint that generates text


def refuse_unserved(request: Generation, fields: Unserved) -> None:
    """Check that a request asks for nothing that this server does not do.

    Args:
        fields: those of its endpoint that are not served.

    Raises:
        ApiError: it does; names the field.
    """
    refuse_fields(request, {**fields, **_PLAIN})
    if request.best_of not in (None, request.n or 1) or isinstance(request.best_of, bool):
        raise not_supported("best_of", "best_of is not supported: this server returns every answer that it generates; use n.")


def refuse_fields(request: BaseModel, fields: Unserved) -> None:
    """Check that none of these fields asks for what this server does not do. Raises as `refuse_unserved`."""
    for name, (harmless, why) in fields.items():
        value = getattr(request, name)
        if value is not None and not any(value == one and type(value) is type(one) for one in harmless):
            raise not_supported(name, f"{name} is {shown(value)}, which is not supported: {why}.{_only(harmless)}")


def _only(harmless: tuple[Any, ...]) -> str:
    """The values that are welcome, for who wants to send the field."""
    return f" Only {' or '.join(dict.fromkeys(map(shown, harmless)))} is served." if harmless else ""
