"""/v1/completions: one or more texts are continued, or said to be how likely."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import Field
from starlette.responses import Response

from triune_client import Chunk, TriuneError

from ..calls import Call, check, check_text, common_options, given, sent_fields
from ..errors import invalid, of_server, shown
from ..logprobs import TextOffsets, prompt_logprobs, prompt_text
from ..refusals import Unserved, refuse_unserved
from ..schemas import INT32, Generation, StreamOptions, Whole
from ..serving import Served
from ..shapes import Gathered, Json, Shape
from .endpoint import STREAMED, Endpoint

_TOKENS = 16  # OpenAI's default
_PROMPTS = "a text, token ids, or a list of these"
Prompt = str | tuple[int, ...]

UNSERVED: Unserved = {
    "suffix": (("",), "the model continues a text; it cannot fill a gap in one"),
}


class CompletionRequest(Generation):
    """The body of /v1/completions."""

    prompt: Any = Field(description=f"{_PROMPTS}, each answered by itself")
    max_tokens: Annotated[Whole, Field(ge=0, le=INT32)] | None = Field(None, description="0: only what is said of the prompt")
    echo: bool | None = Field(None, description="the prompt before the answer, its log probabilities with it")
    logprobs: Annotated[Whole, Field(ge=0, le=20)] | None = None
    suffix: Any = None


async def complete(body: CompletionRequest, serving: Served) -> Response:
    """Continues one or more texts."""
    serving.check_model(body.model)
    calls = _calls(body, most=serving.settings.max_choices)
    echoed = [text for call in calls for text in [await _echo(body, call, serving)] * call.choices]
    shape = CompletionShape(
        body.model, body.stream_options, logprobs=body.logprobs, echoed=echoed, scored=body.prompt_logprobs,
        as_ids=bool(body.return_tokens_as_token_ids), request_id=body.request_id,
    )  # fmt: skip
    return serving.answer(calls, shape, stream=bool(body.stream))


ENDPOINT = Endpoint(method="POST", path="/v1/completions", answer=complete, responses=STREAMED, generates=True)


async def _echo(request: CompletionRequest, call: Call, serving: Served) -> str | None:
    """What an answer begins with: its prompt or nothing; None: the text of the tokens that come with its log probabilities.

    Raises:
        ApiError: the server cannot say what the text of token ids is.
    """
    if not request.echo or isinstance(call.prompt, str):
        return str(call.prompt) if request.echo else ""
    if request.logprobs is not None:
        return None
    try:
        return (await serving.client.tokenize(call.prompt)).shown
    except TriuneError as error:
        raise of_server(error, call.fields) from error


def _calls(request: CompletionRequest, *, most: int) -> list[Call]:
    """The calls of a completion, in the order of its prompts.

    Raises:
        ApiError: the request asks for what is not served, contradicts itself, or has more than `most` choices.
    """
    refuse_unserved(request, UNSERVED)
    prompts = _prompts(request.prompt)
    check(request, prompts=len(prompts), most=most)
    echoed = request.logprobs if request.echo else None
    scored = max((wanted for wanted in (echoed, request.prompt_logprobs) if wanted is not None), default=None)
    most_tokens = _TOKENS if request.max_tokens is None else request.max_tokens
    options = common_options(request) | {
        "max_tokens": max(most_tokens, 1),
        "min_tokens": request.min_tokens if most_tokens else None,
        "logprobs": request.logprobs,
        "prompt_logprobs": scored,
    }
    fields = sent_fields(request, {
        "prompt_logprobs": ("prompt_logprobs", "logprobs"),
        "top_prompt_logprobs": ("prompt_logprobs", "logprobs"),
        "top_logprobs": ("logprobs",),
    })  # fmt: skip
    said, choices = given(options), request.n or 1
    several = not isinstance(request.prompt, str) and not _is_one(request.prompt)
    return [
        Call(
            prompt=one, options=said, choices=choices, answers=most_tokens > 0,
            fields=fields | dict.fromkeys(("text_input", "prompt_token_ids"), f"prompt[{place}]" if several else "prompt"),
        )
        for place, one in enumerate(prompts)
    ]  # fmt: skip


def _prompts(sent: Any) -> list[Prompt]:
    """The prompts of a request, each a text or token ids.

    Raises:
        ApiError: an entry is neither, or has nothing in it; names it.
    """
    if isinstance(sent, str) or _is_one(sent):
        return [_prompt("prompt", sent)]
    if not isinstance(sent, list):
        raise invalid(f"Invalid value for 'prompt': {_PROMPTS} is expected, not {shown(sent)}.", "prompt", "invalid_type")
    return [_prompt(f"prompt[{place}]", one) for place, one in enumerate(sent)]


def _is_one(sent: Any) -> bool:
    """Whether a list is one prompt, of token ids."""
    return isinstance(sent, list) and bool(sent) and all(map(_is_number, sent))


def _prompt(where: str, sent: Any) -> Prompt:
    if not isinstance(sent, str | list):
        raise invalid(
            f"Invalid value for '{where}': a text or token ids are expected, not {shown(sent)}.", where, "invalid_type"
        )
    if not sent:
        what = "at least one character" if sent == "" else "at least one token id"
        raise invalid(f"{where} is empty; it must hold {what}.", where)
    if isinstance(sent, str):
        check_text(where, sent)
        return sent
    return tuple(_token(f"{where}[{place}]", one) for place, one in enumerate(sent))


def _token(where: str, sent: Any) -> int:
    if not _is_number(sent) or sent != int(sent) or not 0 <= sent <= INT32:
        raise invalid(f"Invalid value for '{where}': a token id is expected, not {shown(sent)}.", where, "invalid_value")
    return int(sent)


def _is_number(sent: Any) -> bool:
    return isinstance(sent, int | float) and not isinstance(sent, bool) and sent == sent and abs(sent) != float("inf")


class CompletionShape(Shape):
    """The answer's looks."""

    prefix, object, event_object = "cmpl", "text_completion", "text_completion"

    def __init__(
        self,
        model: str,
        options: StreamOptions | None,
        *,
        logprobs: int | None,
        echoed: Sequence[str | None],
        scored: int | None = None,
        as_ids: bool = False,
        request_id: str | None = None,
    ) -> None:
        """
        Args:
            logprobs: how many of the best tokens log probabilities are wanted of; None: of none at all.
            echoed: what each choice begins with: see `_echo`.
            scored: the same for vLLM's `prompt_logprobs`.
            as_ids: tokens are shown by their numbers.
        """
        super().__init__(model, options, request_id)
        self._top, self._scored, self._echoed = logprobs, scored, list(echoed)
        self._offsets = [TextOffsets(0, as_ids=as_ids) for _ in echoed]

    def _choice(self, index: int, choice: Gathered) -> Json:
        echo = self._echo_of(index, choice.prompt_logprobs)
        found = {
            "index": index,
            "text": "".join((echo, *choice.texts)),
            "logprobs": self._logprobs(index, choice.logprobs, choice.prompt_logprobs, echo),
            "finish_reason": choice.finish_reason,
        }
        if self._scored is not None:
            found["prompt_logprobs"] = prompt_logprobs(choice.prompt_logprobs, self._scored)
        return found

    def _event_choices(self, index: int, chunk: Chunk, reason: str | None, *, first: bool) -> Iterator[Json]:
        echo = self._echo_of(index, chunk.prompt_logprobs) if first else ""
        if echo or chunk.text or chunk.logprobs or reason:
            logprobs = self._logprobs(index, chunk.logprobs, chunk.prompt_logprobs, echo)
            yield {"index": index, "text": echo + chunk.text, "logprobs": logprobs, "finish_reason": reason}

    def _echo_of(self, index: int, entries: Sequence[Any]) -> str:
        echo = self._echoed[index]
        return prompt_text(entries) if echo is None else echo

    def _logprobs(self, index: int, entries: Sequence[Any], prompt: Sequence[Any], echo: str) -> Json | None:
        if self._top is None:
            return None
        offsets = self._offsets[index]
        shaped = offsets.shape(prompt if self._echoed[index] != "" else (), self._top)
        if echo:
            offsets.go_on_at(len(echo))
        behind = offsets.shape(entries, self._top)
        return {name: [*values, *behind[name]] for name, values in shaped.items()}
