"""Requests of /v1/responses, checked field by field; the items of `input` are checked in `items.py`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ..refusals import Unserved
from ..schemas import INT32, Penalty, Salt, Strict, Whole

_HOSTED = "this server runs nothing besides the model"
_OPENAI_KEEPS = "it is kept by OpenAI's service"
UNSERVED: Unserved = {
    "background": ((False,), "an answer is made while its client waits; stream it"),
    "background_options": ((), "an answer is made while its client waits; stream it"),
    "conversation": ((), f"{_OPENAI_KEEPS}; go on with previous_response_id, or send the items"),
    "prompt": ((), f"{_OPENAI_KEEPS}; send instructions and input"),
    "context_management": (([],), "this server does not shorten conversations"),
    "moderation": ((), _HOSTED),
    "image": ((), _HOSTED),
    "access_programs": ((), _HOSTED),
}
# what `include` may name; all but these two is of tools that are not served, so there is never any of it
LOGPROBS, ENCRYPTED = "message.output_text.logprobs", "reasoning.encrypted_content"
Include = Literal[
    "message.output_text.logprobs", "reasoning.encrypted_content", "file_search_call.results", "web_search_call.results",
    "web_search_call.action.sources", "message.input_image.image_url", "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]  # fmt: skip


class Reasoning(Strict):
    """How much to think, and how the thinking is told."""

    effort: Any = Field(None, description="none, minimal, low, medium, high, xhigh or max")
    summary: Literal["auto", "concise", "detailed"] | None = Field(
        None, description="the thinking comes as a summary, whole; otherwise as content"
    )
    generate_summary: Literal["auto", "concise", "detailed"] | None = Field(None, description="an older name of summary")
    context: Literal["auto"] | None = Field(None, description="the model's template decides what of earlier thinking counts")
    mode: Literal["standard"] | None = None


class Text(Strict):
    """What the answer is to look like."""

    format: dict[str, Any] | None = Field(None, description="text, json_object or json_schema")
    verbosity: Literal["medium"] | None = Field(None, description="the model knows no such setting")


class Function(Strict):
    """A function that the model may call."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class StreamOptions(Strict):
    """Nothing that this server does not do anyway."""

    include_obfuscation: bool | None = Field(None, description="no effect")


class ResponseRequest(Strict):
    """The body of /v1/responses."""

    model: str
    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = Field(None, description="a system message before everything else, of this answer alone")
    previous_response_id: str | None = Field(None, description="the answer to go on from, if it was stored")
    store: bool | None = Field(None, description="false: the answer is not kept")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    include: list[Include] | None = None
    max_output_tokens: Annotated[Whole, Field(ge=1, le=INT32)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_logprobs: Annotated[Whole, Field(ge=0, le=20)] | None = None
    reasoning: Reasoning | None = None
    text: Text | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=128)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    # extensions, under the names that /v1/chat/completions has for them
    top_k: Annotated[Whole, Field(ge=-1, le=INT32)] | None = Field(None, description="an extension; 0 or -1: off")
    min_p: Annotated[float, Field(ge=0, le=1)] | None = Field(None, description="an extension; 0: off")
    seed: Annotated[Whole, Field(ge=-(2**63), le=2**64 - 1)] | None = Field(None, description="an extension")
    stop: str | Annotated[list[str], Field(max_length=64)] | None = Field(None, description="an extension")
    presence_penalty: Penalty | None = Field(None, description="an extension")
    frequency_penalty: Penalty | None = Field(None, description="an extension")
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = Field(None, description="an extension; 1: off")
    ignore_eos: bool | None = Field(None, description="an extension")
    thinking_budget: Annotated[Whole, Field(ge=0, le=INT32)] | None = Field(None, description="an extension: tokens")
    cache_salt: Salt | None = Field(None, description="an extension")
    # no effect on the answer
    truncation: Literal["auto", "disabled"] | None = Field(None, description="nothing is left out: what is too long is refused")
    max_tool_calls: Annotated[Whole, Field(ge=1)] | None = Field(None, description="no effect: it is of hosted tools")
    metadata: dict[str, str] | None = Field(None, description="kept with the answer")
    prompt_cache_key: str | None = Field(None, description="no effect")
    prompt_cache_options: dict[str, Any] | None = Field(None, description="no effect")
    prompt_cache_retention: str | None = Field(None, description="no effect")
    safety_identifier: str | None = Field(None, description="no effect")
    service_tier: str | None = Field(None, description="no effect")
    user: str | None = Field(None, description="no effect")
    # refused unless they ask for what happens anyway
    background: Any = None
    background_options: Any = None
    conversation: Any = None
    prompt: Any = None
    context_management: Any = None
    moderation: Any = None
    image: Any = None
    access_programs: Any = None


EXTENSIONS = (
    "top_k", "min_p", "seed", "stop", "presence_penalty", "frequency_penalty", "repetition_penalty", "ignore_eos",
    "thinking_budget", "cache_salt",
)  # fmt: skip
