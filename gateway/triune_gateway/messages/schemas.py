"""Requests of /v1/messages, checked field by field; what messages hold is read in `asking.py`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ..refusals import Unserved
from ..schemas import INT32, Salt, Strict, Whole

_HOSTED = "this server runs nothing besides the model"
UNSERVED: Unserved = {
    "container": ((), _HOSTED),
    "mcp_servers": (([],), _HOSTED),
    "context_management": ((), "this server does not shorten conversations"),
    "diagnostics": ((), _HOSTED),
    "speed": (("standard",), "there is one speed"),
}


class Turn(Strict):
    """A message of a conversation."""

    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]]


class Thinking(Strict):
    """Whether to think, and how many tokens at most."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[Whole, Field(ge=0, le=INT32)] | None = None
    display: Literal["summarized", "omitted"] | None = Field(None, description="omitted: the thinking is not told")


class OutputConfig(Strict):
    """How hard to try, and what the answer is to look like."""

    effort: Any = Field(None, description="low, medium, high, xhigh or max")
    format: dict[str, Any] | None = Field(None, description="json_schema")


class Tool(Strict):
    """A function that the model may call."""

    type: Literal["custom"] | None = None
    name: str
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None
    # no effect on the answer
    cache_control: Any = Field(None, description="no effect")
    allowed_callers: Any = Field(None, description="no effect")
    defer_loading: Literal[False] | None = None
    eager_input_streaming: bool | None = Field(None, description="no effect")
    input_examples: list[dict[str, Any]] | None = Field(None, description="no effect")


class ToolChoice(Strict):
    """Whether a tool must be called, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class MessagesRequest(Strict):
    """The body of /v1/messages."""

    model: str
    max_tokens: Annotated[Whole, Field(ge=1, le=INT32)]
    messages: Annotated[list[Turn], Field(min_length=1)]
    system: str | list[dict[str, Any]] | None = None
    stream: bool | None = None
    stop_sequences: Annotated[list[str], Field(max_length=64)] | None = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[Whole, Field(ge=-1, le=INT32)] | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=128)] | None = None
    tool_choice: ToolChoice | None = None
    cache_salt: Salt | None = Field(None, description="an extension, as of /v1/chat/completions")
    # no effect on the answer
    metadata: dict[str, Any] | None = Field(None, description="no effect")
    service_tier: str | None = Field(None, description="no effect")
    cache_control: dict[str, Any] | None = Field(None, description="no effect")
    inference_geo: str | None = Field(None, description="no effect")
    user_profile_id: str | None = Field(None, description="no effect")
    workspace_id: str | None = Field(None, description="no effect")
    # refused unless they ask for what happens anyway
    container: Any = None
    mcp_servers: Any = None
    context_management: Any = None
    diagnostics: Any = None
    speed: Any = None


class CountRequest(MessagesRequest):
    """The body of /v1/messages/count_tokens: a message's, which need not say how long its answer may be."""

    max_tokens: Annotated[Whole, Field(ge=1, le=INT32)] = Field(1, description="no effect, as whatever is about the answer")
