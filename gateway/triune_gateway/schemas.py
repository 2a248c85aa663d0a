"""Requests as OpenAI's clients send them, checked field by field. What a field does is decided in `calls.py`.

A field that nobody knows is refused, as OpenAI does; null is the same as absent. Fields that cannot change an answer (who asks,
which tier) are taken and have no effect; what this server does not do is refused by `refusals.py`, by name. What one endpoint
alone takes is in its own file.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

INT32 = 2**31 - 1


def _whole(value: Any) -> Any:
    """To JSON, 1.0 is the integer 1."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
TokenId = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]
Id = Annotated[Whole, Field(ge=0, le=INT32)]
Salt = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
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
    """What every endpoint that generates text takes."""

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
    stop_token_ids: Annotated[list[Id], Field(max_length=1024)] | None = Field(None, description="an extension")
    prompt_logprobs: Annotated[Whole, Field(ge=0, le=20)] | None = Field(
        None, description="an extension: of the prompt's tokens too; not with stream"
    )
    cache_salt: Salt | None = Field(
        None, description="an extension: what is computed of prompts is shared with the same salt only"
    )
    return_tokens_as_token_ids: bool | None = Field(None, description="an extension: tokens of logprobs as token_id:NUMBER")
    add_special_tokens: bool | None = Field(
        None, description="an extension: whether the tokenizer puts what it has before a text"
    )
    request_id: str | None = Field(None, description="an extension: the end of the answer's id")
    response_format: dict[str, Any] | None = Field(
        None, description="text, json_object or json_schema; extensions: docs/structured.md"
    )
    structured_outputs: dict[str, Any] | None = Field(None, description="an extension, as vLLM's")
    guided_json: str | dict[str, Any] | bool | None = Field(None, description="the same in an older form")
    guided_regex: str | None = Field(None, description="likewise")
    guided_choice: list[str] | None = Field(None, description="likewise")
    guided_grammar: str | None = Field(None, description="likewise")
    # no effect on the answer
    user: str | None = Field(None, description="no effect")
    guided_decoding_backend: str | None = Field(None, description="no effect")
    # refused unless they ask for what happens anyway
    best_of: Any = None
    use_beam_search: Any = None
    early_stopping: Any = None
    length_penalty: Any = None
    priority: Any = None
    skip_special_tokens: Any = None
    spaces_between_special_tokens: Any = None
    include_stop_str_in_output: Any = None
    detokenize: Any = None
    allowed_token_ids: Any = None
    truncate_prompt_tokens: Any = None
    logits_processors: Any = None
    prompt_embeds: Any = None
    guided_whitespace_pattern: Any = None
    return_token_ids: Any = None
    vllm_xargs: Any = None
    kv_transfer_params: Any = None
    mm_processor_kwargs: Any = None
    ec_transfer_params: Any = None
    repetition_detection: Any = None
