"""/v1/responses: a conversation is answered, and kept, so that it can go on from there by an id."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from fastapi import Depends, Query, Request
from starlette.responses import Response

from ..bearer import sent_key
from ..errors import invalid, not_supported
from ..responses.asking import call_of, check, top_logprobs
from ..responses.items import read_items
from ..responses.schemas import Include, ResponseRequest
from ..responses.shape import ResponseShape
from ..responses.store import Store, Stored, not_found
from ..sending import JsonResponse
from ..serving import Served
from .endpoint import STREAMED, Endpoint

Json = dict[str, Any]


async def _owner(request: Request) -> str:
    """Whose answers they are: those of the key that a request has; without keys, everyone's."""
    if not request.app.state.serving.settings.api_keys:
        return ""
    key = sent_key(dict(request.scope["headers"])).partition(b" ")[2].strip()  # however the scheme is spelled
    return hashlib.sha256(key).hexdigest()


Owner = Annotated[str, Depends(_owner)]


async def respond(body: ResponseRequest, owner: Owner, serving: Served) -> Response:
    """Answers a conversation."""
    serving.check_model(body.model)
    check(body)
    kept = serving.responses
    earlier = kept.conversation(owner, body.previous_response_id) if body.previous_response_id is not None else []
    items = read_items(body.input or [], lambda name: kept.item(owner, name))
    call = call_of(body, [*earlier, *items])
    store = kept.keeps and body.store is not False

    def keep(response: Json) -> None:
        if store:
            kept.put(owner, Stored(response=response, input=items))

    shape = ResponseShape(body, store=store, top=top_logprobs(body), keep=keep)
    return serving.answer([call], shape, stream=bool(body.stream))


async def one(
    response_id: str,
    owner: Owner,
    serving: Served,
    include: Annotated[list[Include] | None, Query()] = None,
    stream: bool = False,
) -> Response:
    """An answer that is kept."""
    if stream:
        raise not_supported("stream", "stream is not supported here: an answer that is kept has ended.")
    return JsonResponse(_stored(serving.responses, owner, response_id).response)


async def forget(response_id: str, owner: Owner, serving: Served) -> Response:
    """Forgets an answer."""
    if not serving.responses.delete(owner, response_id):
        raise not_found(response_id)
    return JsonResponse({"id": response_id, "object": "response", "deleted": True})


async def input_items(
    response_id: str, owner: Owner, serving: Served, include: Annotated[list[Include] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20, order: Literal["asc", "desc"] = "desc", after: str | None = None,
) -> Response:  # fmt: skip
    """The items that an answer was made from, those of the answers before it included."""
    stored = _stored(serving.responses, owner, response_id)
    previous = stored.response["previous_response_id"]
    items = [*(serving.responses.conversation(owner, previous) if previous is not None else ()), *stored.input]
    items = items if order == "asc" else items[::-1]
    if after is not None:
        places = [place for place, item in enumerate(items) if item["id"] == after]
        if not places:
            raise invalid(f"after is {after!r}; no item of this response has that id.", "after")
        items = items[places[0] + 1 :]
    page = items[:limit]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return JsonResponse({"object": "list", "data": page, "has_more": len(items) > limit} | ends)


async def cancel(response_id: str, owner: Owner, serving: Served) -> Response:
    """Refuses: a client ends an answer by leaving."""
    _stored(serving.responses, owner, response_id)
    raise invalid("Only responses created with background=true can be cancelled; this server makes none.", "response_id")


def _stored(kept: Store, owner: str, response_id: str) -> Stored:
    found = kept.get(owner, response_id)
    if found is None:
        raise not_found(response_id)
    return found


CREATE = Endpoint(method="POST", path="/v1/responses", answer=respond, responses=STREAMED, generates=True)
ONE = Endpoint(method="GET", path="/v1/responses/{response_id}", answer=one)
FORGET = Endpoint(method="DELETE", path="/v1/responses/{response_id}", answer=forget)
INPUT_ITEMS = Endpoint(method="GET", path="/v1/responses/{response_id}/input_items", answer=input_items)
CANCEL = Endpoint(method="POST", path="/v1/responses/{response_id}/cancel", answer=cancel)
