"""/v1/messages: a conversation is answered, in Anthropic's protocol."""

from __future__ import annotations

from starlette.responses import Response

from ..messages.asking import call_of
from ..messages.schemas import MessagesRequest
from ..messages.shape import MessageShape
from ..serving import Served
from .endpoint import STREAMED, Endpoint


async def message(body: MessagesRequest, serving: Served) -> Response:
    """Answers a conversation."""
    serving.check_model(body.model)
    call = call_of(body)
    shown = body.thinking is None or body.thinking.display != "omitted"
    shape = MessageShape(body.model, show_thinking=shown, stops=bool(body.stop_sequences))
    return serving.answer([call], shape, stream=bool(body.stream))


ENDPOINT = Endpoint(method="POST", path="/v1/messages", answer=message, responses=STREAMED)
