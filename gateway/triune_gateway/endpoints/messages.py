"""/v1/messages: a conversation is answered, or its tokens are counted, in Anthropic's protocol."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from triune_client import TriuneError

from ..answering import without_wish
from ..calls import given
from ..errors import invalid, of_server
from ..messages.asking import call_of
from ..messages.schemas import CountRequest, MessagesRequest
from ..messages.shape import MessageShape
from ..sending import JsonResponse
from ..serving import Served
from .endpoint import STREAMED, Endpoint

_OF_THE_PROMPT = ("tools", "tool_choice", "parallel_tool_calls", "enable_thinking")  # options that it is made with


async def message(body: MessagesRequest, serving: Served) -> Response:
    """Answers a conversation."""
    serving.check_model(body.model)
    call = call_of(body)
    shown = body.thinking is None or body.thinking.display != "omitted"
    shape = MessageShape(body.model, show_thinking=shown, stops=bool(body.stop_sequences))
    return serving.answer([call], shape, stream=bool(body.stream))


async def count_tokens(body: CountRequest, serving: Served) -> Response:
    """How many tokens a conversation is, tools included; nothing is generated."""
    serving.check_model(body.model)
    call = call_of(body)
    while True:
        options: Any = given({name: call.options.get(name) for name in _OF_THE_PROMPT})
        try:
            found = await serving.client.tokenize_chat(call.messages or (), **options)
            return JsonResponse({"input_tokens": len(found.ids)})
        except (TypeError, ValueError) as error:  # what the schemas let through is no conversation
            raise invalid(f"{error}.") from error
        except TriuneError as error:
            easier = without_wish(call, error)
            if easier is None:
                raise of_server(error, call.fields) from error
            call = easier


ENDPOINT = Endpoint(method="POST", path="/v1/messages", answer=message, responses=STREAMED, generates=True)
COUNT_TOKENS = Endpoint(method="POST", path="/v1/messages/count_tokens", answer=count_tokens)
