"""Requests as OpenAI's clients send them, checked field by field. What a field does is decided in `calls.py`.

A field that nobody knows is refused, as OpenAI does; null is the same as absent. Fields that cannot change an answer (who asks,
which tier) are taken and have no effect; what this server does not do is refused by `refusals.py`, by name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

INT32 = 2**31 - 1


def _whole(value: Any) -> Any:
    """To JSON, 1.0 is the integer 1."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
TokenId = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]
Bias = Annotated[float, Field(ge=-100, le=100)]


class Strict(BaseModel):
    """No unknown fields, no strings for numbers, no infinities."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class StreamOptions(Strict):
    """What a stream carries besides its text."""

    include_usage: bool | None = Field(None, description="a last event with the token counts of the whole answer")
    continuous_usage_stats: bool | None = Field(None, description="token counts in every event (an extension, as vLLM's)")
    include_obfuscation: bool | None = Field(None, description="no effect")


class Generation(Strict):
    """What both endpoints take."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[Whole, Field(ge=1, le=128)] | None = None
    seed: Annotated[Whole, Field(ge=-(2**63), le=2**64 - 1)] | None = Field(None, description="same seed, same answer")
    stop: str | Annotated[list[str], Field(max_length=64)] | None = None
    max_tokens: Annotated[Whole, Field(ge=1, le=INT32)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[TokenId, Bias] | None = Field(None, description="token id -> added to its logit")
    # extensions, under the names that vLLM's server has for them
    top_k: Annotated[Whole, Field(ge=-1, le=INT32)] | None = Field(None, description="an extension; 0 or -1: off")
    min_p: Annotated[float, Field(ge=0, le=1)] | None = Field(None, description="an extension; 0: off")
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = Field(None, description="an extension; 1: off")
    min_tokens: Annotated[Whole, Field(ge=0, le=INT32)] | None = Field(None, description="an extension")
    bad_words: Annotated[list[str], Field(max_length=1024)] | None = Field(None, description="an extension")
    ignore_eos: bool | None = Field(None, description="an extension")
    response_format: dict[str, Any] | None = Field(
        None, description="text, json_object or json_schema; extensions: docs/structured.md"
    )
    structured_outputs: dict[str, Any] | None = Field(None, description="an extension, as vLLM's")
    # no effect on the answer
    user: str | None = Field(None, description="no effect")
    # refused unless they ask for what happens anyway
    best_of: Any = None


class ChatMessage(Strict):
    """A turn of a conversation. What clients send back of an earlier answer is welcome."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    reasoning_content: str | None = Field(None, description="earlier thinking; the model's template decides what of it counts")
    tool_call_id: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    # parts of an earlier answer that are no part of the conversation
    refusal: str | None = Field(None, description="no effect")
    annotations: list[Any] | None = Field(None, description="no effect")
    audio: Any = Field(None, description="no effect")
    function_call: Any = None


class TemplateArguments(Strict):
    """What the model's chat template is told; the names that vLLM's clients send."""

    enable_thinking: bool | None = None
    thinking: bool | None = None


class ChatRequest(Generation):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[Whole, Field(ge=1, le=INT32)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[Whole, Field(ge=0, le=20)] | None = None
    # tools
    tools: Annotated[list[dict[str, Any]], Field(max_length=128)] | None = None
    tool_choice: str | dict[str, Any] | None = Field(None, description="none, auto, required, or one function")
    parallel_tool_calls: bool | None = Field(None, description="false: at most one call in an answer")
    # thinking
    reasoning_effort: Any = Field(None, description='"none": answer without thinking; other values are refused')
    enable_thinking: bool | None = Field(None, description="an extension")
    thinking_budget: Annotated[Whole, Field(ge=0, le=INT32)] | None = Field(None, description="an extension: tokens")
    chat_template_kwargs: TemplateArguments | None = Field(None, description="an extension")
    # no effect on the answer
    metadata: dict[str, Any] | None = Field(None, description="no effect")
    prompt_cache_key: str | None = Field(None, description="no effect")
    prompt_cache_retention: str | None = Field(None, description="no effect")
    safety_identifier: str | None = Field(None, description="no effect")
    service_tier: str | None = Field(None, description="no effect")
    # refused unless they ask for what happens anyway
    functions: Any = None
    function_call: Any = None
    audio: Any = None
    modalities: Any = None
    prediction: Any = None
    store: Any = None
    verbosity: Any = None
    web_search_options: Any = None


class CompletionRequest(Generation):
    """The body of /v1/completions."""

    prompt: str | list[Any]
    echo: bool | None = None
    logprobs: Annotated[Whole, Field(ge=0, le=20)] | None = None
    suffix: Any = None
