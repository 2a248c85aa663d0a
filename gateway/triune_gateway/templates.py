"""How a conversation becomes a prompt: what the model's chat template is told. No I/O."""

from __future__ import annotations

from typing import Any, Protocol

from pydantic import ConfigDict

from .errors import invalid
from .formats import check_json
from .schemas import Strict


class TemplateArguments(Strict):
    """What the model's chat template is told; the names that vLLM's clients send, and any others."""

    model_config = ConfigDict(extra="allow")
    enable_thinking: bool | None = None
    thinking: bool | None = None


class TemplateFields(Protocol):
    """The fields of a request that say how a conversation becomes a prompt."""

    @property
    def add_generation_prompt(self) -> bool | None: ...
    @property
    def continue_final_message(self) -> bool | None: ...
    @property
    def split_special_tokens(self) -> bool | None: ...
    @property
    def documents(self) -> list[dict[str, Any]] | None: ...
    @property
    def chat_template_kwargs(self) -> TemplateArguments | None: ...


def template_options(request: TemplateFields) -> dict[str, Any]:
    """The client's options for how a conversation becomes a prompt.

    Raises:
        ApiError: the fields contradict each other.
    """
    if request.add_generation_prompt and request.continue_final_message:
        raise invalid("continue_final_message and add_generation_prompt are both true.", "continue_final_message")
    sent = request.chat_template_kwargs
    variables = {name: value for name, value in ((sent.model_extra or {}) if sent else {}).items() if value is not None}
    if request.documents:
        variables["documents"] = request.documents
    check_json("chat_template_kwargs", variables)
    return {
        "add_generation_prompt": request.add_generation_prompt,
        "continue_final_message": request.continue_final_message,
        "split_special_tokens": request.split_special_tokens is not False,
        "chat_template_kwargs": variables or None,
    }
