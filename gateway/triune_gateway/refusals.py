"""What OpenAI's clients may ask for and this server does not do: refused by name, never ignored.

A value that asks for what happens anyway (no functions, plain text) is welcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import ApiError, not_supported
from .schemas import ChatMessage, ChatRequest, CompletionRequest, Generation

_FUNCTIONS = "it was replaced by tools and tool_choice, which are served"
_TEXT_ONLY = "this server reads and writes text only"

# field -> the values that change nothing, and why any other is refused
_CHAT: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "functions": (([],), _FUNCTIONS),
    "function_call": (("none",), _FUNCTIONS),
    "audio": ((), _TEXT_ONLY),
    "modalities": ((["text"],), _TEXT_ONLY),
    "prediction": ((), "this server does not use predicted outputs"),
    "store": ((False,), "this server keeps no answers"),
    "verbosity": ((), "the model knows no such setting; ask for it in a message"),
    "web_search_options": ((), "this server does not search the web"),
    "reasoning_effort": (("none",), 'only "none" is served; thinking_budget bounds the tokens of thinking'),
}
_COMPLETION: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "suffix": (("",), "the model continues a text; it cannot fill a gap in one"),
}


def refuse_unserved(request: Generation) -> None:
    """Check that a request asks for nothing that this server does not do.

    Raises:
        ApiError: it does; names the field.
    """
    table = _CHAT if isinstance(request, ChatRequest) else _COMPLETION
    for name, (harmless, why) in table.items():
        value = getattr(request, name)
        if value is not None and not any(value == one and type(value) is type(one) for one in harmless):
            raise not_supported(name, f"{name} is not supported: {why}.")
    if request.best_of not in (None, request.n or 1) or isinstance(request.best_of, bool):
        raise not_supported("best_of", "best_of is not supported: this server returns every answer that it generates; use n.")
    if isinstance(request, ChatRequest):
        for index, message in enumerate(request.messages):
            _refuse_unserved_message(f"messages[{index}]", message)
    elif isinstance(request, CompletionRequest):
        _refuse_unserved_prompt(request)


def _refuse_unserved_message(where: str, message: ChatMessage) -> None:
    if message.function_call is not None or message.role == "function":
        raise not_supported(where, f"{where} is about a call of a function: {_FUNCTIONS}.")
    for index, part in enumerate(message.content if isinstance(message.content, list) else ()):
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise not_supported(f"{where}.content[{index}]", f"{where}.content[{index}] is not text: {_TEXT_ONLY}.")


def _refuse_unserved_prompt(request: CompletionRequest) -> None:
    if isinstance(request.prompt, list) and any(not isinstance(one, str) for one in request.prompt):
        raise _token_ids()
    if request.echo and request.logprobs is not None:
        raise not_supported("logprobs", "logprobs with echo is not supported: this server computes them for answers only.")


def _token_ids() -> ApiError:
    return not_supported("prompt", "prompt must be a string or a list of strings: token ids are not supported.")
