"""/v1/completions: one or more texts are continued."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field
from starlette.responses import Response

from triune_client import Chunk

from ..calls import Call, check, check_text, common_options, given, sent_fields
from ..errors import invalid, not_supported
from ..logprobs import TextOffsets
from ..refusals import Unserved, refuse_unserved
from ..schemas import Generation, StreamOptions, Whole
from ..serving import Served
from ..shapes import Gathered, Json, Shape
from .endpoint import STREAMED, Endpoint

_TOKENS = 16  # OpenAI's default

UNSERVED: Unserved = {
    "suffix": (("",), "the model continues a text; it cannot fill a gap in one"),
}


class CompletionRequest(Generation):
    """The body of /v1/completions."""

    prompt: str | list[Any]
    echo: bool | None = None
    logprobs: Annotated[Whole, Field(ge=0, le=20)] | None = None
    suffix: Any = None


async def complete(body: CompletionRequest, serving: Served) -> Response:
    """Continues one or more texts."""
    serving.check_model(body.model)
    calls = _calls(body, most=serving.settings.max_choices)
    echoed = [call.prompt if body.echo else "" for call in calls for _ in range(call.choices)]
    shape = CompletionShape(body.model, body.stream_options, logprobs=body.logprobs, echoed=echoed)
    return serving.answer(calls, shape, stream=bool(body.stream))


ENDPOINT = Endpoint(method="POST", path="/v1/completions", answer=complete, responses=STREAMED)


def _calls(request: CompletionRequest, *, most: int) -> list[Call]:
    """The calls of a completion, in the order of its prompts.

    Raises:
        ApiError: the request asks for what is not served, contradicts itself, or has more than `most` choices.
    """
    refuse_unserved(request, UNSERVED)
    if isinstance(request.prompt, list) and any(not isinstance(one, str) for one in request.prompt):
        raise not_supported("prompt", "prompt must be a string or a list of strings: token ids are not supported.")
    if request.echo and request.logprobs is not None:
        raise not_supported("logprobs", "logprobs with echo is not supported: this server computes them for answers only.")
    prompts = [request.prompt] if isinstance(request.prompt, str) else request.prompt
    check(request, prompts=len(prompts), most=most)
    options = common_options(request) | {"max_tokens": request.max_tokens or _TOKENS, "logprobs": request.logprobs}
    for prompt in prompts:
        check_text("prompt", prompt)
        if not prompt:
            raise invalid("prompt is empty; it must hold at least one character.", "prompt")
    fields = sent_fields(request, {"text_input": ("prompt",)})
    return [Call(prompt=prompt, options=given(options), choices=request.n or 1, fields=fields) for prompt in prompts]


class CompletionShape(Shape):
    """The answer's looks."""

    prefix, object, event_object = "cmpl", "text_completion", "text_completion"

    def __init__(self, model: str, options: StreamOptions | None, *, logprobs: int | None, echoed: list[str]) -> None:
        """
        Args:
            echoed: what each choice begins with: its prompt or nothing.
        """
        super().__init__(model, options)
        self._top = logprobs
        self._echoed = echoed
        self._offsets = [TextOffsets(len(text)) for text in echoed]

    def _choice(self, index: int, choice: Gathered) -> Json:
        text = "".join((self._echoed[index], *choice.texts))
        return {
            "index": index,
            "text": text,
            "logprobs": self._logprobs(index, choice.logprobs),
            "finish_reason": choice.finish_reason,
        }

    def _event_choices(self, index: int, chunk: Chunk, reason: str | None, *, first: bool) -> Iterator[Json]:
        text = self._echoed[index] + chunk.text if first else chunk.text
        if text or chunk.logprobs or reason:
            yield {"index": index, "text": text, "logprobs": self._logprobs(index, chunk.logprobs), "finish_reason": reason}

    def _logprobs(self, index: int, entries: Any) -> Json | None:
        return None if self._top is None else self._offsets[index].shape(entries, self._top)
