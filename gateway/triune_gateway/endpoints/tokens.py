"""/tokenize and /detokenize, as vLLM has them: what the model's own tokenizer makes of a prompt, and of tokens."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated, Any

from pydantic import Field
from starlette.responses import Response

from triune_client import Tokens, TriuneError

from ..calls import check_text, given
from ..errors import invalid, not_supported, of_server
from ..formats import tool_options
from ..schemas import Id, Strict
from ..sending import JsonResponse
from ..serving import Served
from ..templates import TemplateArguments, template_options
from .chat import ChatMessage, chat_messages
from .endpoint import Endpoint

_FIELDS = {
    "text_input": "prompt", "prompt_token_ids": "tokens", "messages": "messages", "prompt": "prompt", "tools": "tools",
    "chat_template_kwargs": "chat_template_kwargs", "documents": "documents",
    "continue_final_message": "continue_final_message", "enable_thinking": "chat_template_kwargs",
}  # fmt: skip


class TokenizeRequest(Strict):
    """The body of /tokenize: a prompt or messages."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1)] | None = None
    add_special_tokens: bool | None = Field(None, description="by default true of a prompt, false of messages")
    return_token_strs: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    split_special_tokens: bool | None = None
    documents: list[dict[str, Any]] | None = None
    chat_template_kwargs: TemplateArguments | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=128)] | None = None
    # refused unless they ask for what happens anyway
    chat_template: Any = None
    mm_processor_kwargs: Any = None


class DetokenizeRequest(Strict):
    """The body of /detokenize."""

    model: str | None = None
    tokens: list[Id]


async def tokenize(body: TokenizeRequest, serving: Served) -> Response:
    """The tokens of a prompt, as the model would get them."""
    _check_model(body.model, serving)
    if (body.prompt is None) == (body.messages is None):
        which = "both" if body.prompt is not None else "neither"
        raise invalid(f"prompt or messages is expected; this request has {which}.", "prompt")
    if body.chat_template is not None or body.mm_processor_kwargs not in (None, {}):
        name = "chat_template" if body.chat_template is not None else "mm_processor_kwargs"
        raise not_supported(name, f"{name} is not supported: the model's own template is used, and it reads text only.")
    if body.messages is None:
        prompt = body.prompt or ""
        check_text("prompt", prompt)
        if not prompt:
            raise invalid("prompt is empty; it must hold at least one character.", "prompt")
        found = await _told(serving.client.tokenize(prompt, **given({"add_special_tokens": body.add_special_tokens})))
    else:
        thinks = body.chat_template_kwargs and (body.chat_template_kwargs.enable_thinking, body.chat_template_kwargs.thinking)
        options: Any = template_options(body) | tool_options(body.tools, None, None)
        options |= {"add_special_tokens": body.add_special_tokens}
        options |= {"enable_thinking": next((one for one in thinks or () if one is not None), None)}
        found = await _told(serving.client.tokenize_chat(chat_messages(body.messages), **given(options)))
    strings = list(found.names) if body.return_token_strs else None
    ids = list(found.ids)
    return JsonResponse({"count": len(ids), "max_model_len": found.max_length, "tokens": ids, "token_strs": strings})


async def detokenize(body: DetokenizeRequest, serving: Served) -> Response:
    """The text of tokens, special ones included."""
    _check_model(body.model, serving)
    return JsonResponse({"prompt": (await _told(serving.client.tokenize(body.tokens))).text if body.tokens else ""})


def _check_model(name: str | None, serving: Served) -> None:
    if name is not None:
        serving.check_model(name)


async def _told(call: Awaitable[Tokens]) -> Tokens:
    try:
        return await call
    except (TypeError, ValueError) as error:  # what the schemas let through does not fit the server's tensors
        raise invalid(f"{error}.") from error
    except TriuneError as error:
        raise of_server(error, _FIELDS) from error


TOKENIZE = Endpoint(method="POST", path="/tokenize", answer=tokenize)
DETOKENIZE = Endpoint(method="POST", path="/detokenize", answer=detokenize)
