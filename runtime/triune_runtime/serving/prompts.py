"""The tokenize step: the inputs of a request -> prompt ids and options."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..allocator import return_free_memory
from ..constraints.tools import with_tools
from ..errors import RequestCode, RequestError, TooLong
from ..manifest import EngineManifest
from ..options.declared import CLIENT_NAMES, VLLM_PROMPT
from ..options.parsing import json_object, parse
from ..options.values import FLAG, Real, text
from ..options.wire import Options
from ..text.chat import ChatTemplate, Ending, Message, parse_messages
from ..text.reasoning import ends_in_thinking, without_thinking
from ..text.tokenizer import TextTokenizer
from ..text.tools import Tool, ToolUse, read_tools
from .request_log import RequestLog
from .tensors import Arrays, Tensors, flat, strings
from .tracing import ENDPOINT

PROMPTS = ("text_input", VLLM_PROMPT, "messages", "prompt_token_ids")
_ONE_PROMPT = "send one prompt per request"
_ROWS = "send one row of each input, or as many as there are prompts"
_LONGEST_TRACE = 1024  # bytes of a caller's traceparent, and of its tracestate
_SPECIAL_BYTES = 64  # more than the text of any special token
_JSON_OVERHEAD = 8  # an escape such as \u0041 takes 6 bytes for one


class PromptService:
    """Turns text or messages into token ids and reads every other input."""

    def __init__(self, manifest: EngineManifest, tokenizer: TextTokenizer, *, traced: bool = False) -> None:
        """
        Args:
            traced: whether generate is told of the caller's trace, and when this was done.
        """
        self._traced = traced
        self.log = RequestLog.of_environment(manifest.model)  # for requests that are refused here
        self._manifest = manifest
        self._tokenizer = tokenizer
        self._template = ChatTemplate(manifest.chat_template, manifest.special_tokens, manifest.tool_template)
        self._token_bytes = tokenizer.token_bytes()
        longest = max(map(len, self._token_bytes))
        self._max_bytes = manifest.limits.max_length * max(longest, _SPECIAL_BYTES)  # a longer text cannot fit

    @classmethod
    def load(cls, folder: Path) -> PromptService:
        """The service of the engine in `folder`."""
        manifest = EngineManifest.load(folder)
        service = cls(manifest, TextTokenizer.load(folder, manifest), traced=bool(os.environ.get(ENDPOINT)))
        return_free_memory()
        return service

    def prompt(self, tensors: Tensors, parameters: Mapping[str, Any]) -> tuple[NDArray[np.int32], Options]:
        """Prompt ids [n] and options of one request.

        Raises:
            RequestError: no prompt, several prompts, or a bad input; names it.
        """
        try:
            return self._prompt(tensors, parameters)
        except RecursionError:
            raise RequestError(
                "a JSON input is nested too deeply", "send JSON as in the documentation", code="too_large"
            ) from None

    def prompts(
        self, tensors: Tensors, parameters: Mapping[str, Any], context: Callable[[], str | None] = lambda: None
    ) -> tuple[NDArray[np.int32], list[Options]]:
        """Prompt ids [n] of all rows of a request behind each other, and the options of each row.

        Args:
            context: of Triton's own span, as JSON; asked where requests are traced and the caller's own is not known.

        Raises:
            RequestError: as `prompt`, or the inputs have different numbers of rows.
        """
        begun_ns = time.time_ns()
        found = [self.prompt(row, parameters) for row in _rows(tensors)]
        if self._traced:
            trace, times, chat = (
                _trace(parameters) or _trace(json.loads(context() or "{}")),
                (begun_ns, time.time_ns()),
                "messages" in tensors,
            )
            found = [(ids, dataclasses.replace(row, trace=trace, tokenized_ns=times, chat=chat)) for ids, row in found]
        if not found:
            raise RequestError("the request has no rows", _ONE_PROMPT, code="missing_value")
        if len(found) == 1:
            ids, options = found[0]
            return ids, [options]
        told = [dataclasses.replace(options, prompt_tokens=len(ids)) for ids, options in found]
        return np.concatenate([ids for ids, _ in found]), told

    def described(self, ids: NDArray[np.int32], wanted: Collection[str]) -> Arrays:
        """What of `DESCRIBED` is wanted of a prompt's ids [n]."""
        listed = ids.tolist()
        makers: Mapping[str, Callable[[], NDArray[Any]]] = {
            "tokens": lambda: strings(*self._tokenizer.names(listed)),
            "text": lambda: strings(self._tokenizer.decode(listed)),
            "shown_text": lambda: strings(self._token_bytes.text(listed, self._token_bytes.dropped(listed))),
            "max_length": lambda: np.array([self._manifest.limits.max_length], np.int32),
        }
        return {name: make() for name, make in makers.items() if name in wanted}

    def _prompt(self, tensors: Tensors, parameters: Mapping[str, Any]) -> tuple[NDArray[np.int32], Options]:
        inputs = {name: flat(array) for name, array in tensors.items()}
        options = parse(
            inputs,
            defaults=self._manifest.defaults,
            encode_word=self._tokenizer.encode_rendered,
            fallback_seed=secrets.randbits(64),
            vocab_size=self._manifest.vocab_size,
            parameters=parameters,
            batched=any(array.ndim > 1 for array in tensors.values()),
        )
        if "timeout" in parameters:  # over HTTP, Triton hands its own deadline on as a parameter
            timeout_s = Real(0, 86_400e6).read("parameter timeout", parameters["timeout"]) / 1e6
            options = dataclasses.replace(options, timeout_s=min(filter(None, (timeout_s, options.timeout_s)), default=None))
        if options.cancel:
            return np.zeros(1, np.int32), options
        use = _tool_use(inputs)
        if use is not None:
            form, said_by = self._template.tool_format, "tools" if use.required else options.guide_input
            params = dataclasses.replace(options.params, guide=with_tools(use, form, options.params.guide))
            options = dataclasses.replace(options, params=params, guide_input=said_by, tool_format=form.name)
        ids, opened = self._ids(inputs, options.enable_thinking, use)
        apart = options.separate_reasoning
        if apart is None:  # whoever sends text_input gets the whole text, as from other servers of this contract
            apart = bool(inputs.get("messages")) and not options.echo
        return np.array(ids, np.int32), dataclasses.replace(
            options,
            enable_thinking=None,  # has had its effect
            separate_reasoning=(apart and self._manifest.reasoning is not None) or None,
            thinking_open=opened,
        )

    def _ids(self, inputs: Mapping[str, list[Any]], thinking: bool | None, use: ToolUse | None) -> tuple[list[int], bool]:
        """Prompt ids, and whether the answer begins inside the model's thinking."""
        markers = self._manifest.reasoning
        if thinking and markers is None:
            said = "enable_thinking is true, but this model does not think"
            raise RequestError(said, "omit enable_thinking", code="unsupported", param="enable_thinking")
        if thinking is not None and not inputs.get("messages"):
            said = "enable_thinking is given without messages; other prompts are sent to the model as they are"
            raise RequestError(said, "send messages, or omit it", code="conflict", param="enable_thinking")
        for name in ("continue_final_message", "chat_template_kwargs", "split_special_tokens"):
            if inputs.get(name) and inputs[name][0] and not inputs.get("messages"):
                said = f"{name} is given without messages; other prompts are sent to the model as they are"
                raise RequestError(said, "send messages, or omit it", code="conflict", param=name)
        sent, values = _sent(inputs)
        name = CLIENT_NAMES.get(sent, sent)
        if name == "prompt_token_ids":
            ids = self._checked(values)
            text_of_ids = self._token_bytes.join(ids[-_SPECIAL_BYTES:]).decode("utf-8", "replace")
            return ids, markers is not None and ends_in_thinking(text_of_ids, markers)
        if len(values) != 1:
            said = f"{name} holds {len(values)} strings; one is expected"
            raise RequestError(said, _ONE_PROMPT, code="invalid_value", param=name)
        content, mark = text(name, values[0]), ""
        if name == "messages":
            self._check_size(name, content, self._max_bytes * _JSON_OVERHEAD)
            messages = parse_messages(content)
            if len(messages) > (most := self._manifest.limits.max_length):  # each is a token at least
                said = f"messages has {len(messages):,} entries, but this engine holds {most:,} tokens"
                raise TooLong(said, "send fewer messages", param=name)
            mark, content = self._rendered(messages, inputs, thinking, use)
            if markers is not None and thinking is False:
                content = without_thinking(content, markers)
        self._check_size(name, text(name, content), self._max_bytes)
        special = (
            FLAG.read("add_special_tokens", given[0]) if (given := inputs.get("add_special_tokens")) else name != "messages"
        )
        encode = self._tokenizer.encode if special else self._tokenizer.encode_rendered
        ids = [*encode(""), *self._tokenizer.literal.encode(content, mark)] if mark else encode(content)
        return ids, markers is not None and ends_in_thinking(content, markers)

    def _rendered(
        self, messages: list[Message], inputs: Mapping[str, list[Any]], thinking: bool | None, use: ToolUse | None
    ) -> tuple[str, str]:
        """The prompt of a chat, and the mark inside what of it spells special tokens and is text."""
        variables, mark = dict(json_object("chat_template_kwargs", inputs)), ""
        for name in ("enable_thinking", "thinking"):  # the template is told of these by `thinking`
            if variables.get(name) is not None and variables[name] != thinking:
                said = f"chat_template_kwargs.{name} is {variables[name]}, which enable_thinking does not say"
                raise RequestError(said, "send enable_thinking", code="conflict", param="chat_template_kwargs")
            variables.pop(name, None)
        if (split := inputs.get("split_special_tokens")) and FLAG.read("split_special_tokens", split[0]):
            markers = self._manifest.reasoning
            answers = (*((markers.start, markers.end) if markers else ()), *self._template.tool_format.markers)
            listed = [tool.raw for tool in use.tools] if use else []
            mark, messages, (variables, listed) = self._tokenizer.literal.marked(messages, variables, listed, answers=answers)
            use = use and dataclasses.replace(use, tools=tuple(map(_with_raw, use.tools, listed)))
        ending = _ending(inputs)
        return mark, self._template.render(messages, thinking=thinking, tools=use, ending=ending, variables=variables)

    def _checked(self, ids: list[Any]) -> list[int]:
        """Token ids of a prompt, which must be the vocabulary's."""
        size = self._manifest.vocab_size
        outside = next((place for place, token in enumerate(ids) if not 0 <= token < size), None)
        if outside is not None:
            said = f"prompt_token_ids[{outside}] is {ids[outside]}; token ids from 0 to {size - 1:,} are expected"
            hint = "send ids of this model's own tokenizer"
            raise RequestError(said, hint, code="invalid_value", param=f"prompt_token_ids[{outside}]")
        return ids

    def _check_size(self, name: str, content: str, limit: int) -> None:
        """Refuse what cannot fit before working on it: this process serves everyone."""
        if (size := len(content.encode("utf-8"))) > limit:
            tokens = self._manifest.limits.max_length
            raise TooLong(
                f"{name} has {size:,} bytes; the {tokens:,} tokens that this engine holds are at most {limit:,}",
                "shorten the prompt",
                param=name,
            )


def _with_raw(tool: Tool, raw: dict[str, Any]) -> Tool:
    return dataclasses.replace(tool, raw=raw)


def _trace(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """The caller's traceparent and tracestate, without those that are too long to be any."""
    values = [str(parameters.get(name, "")) for name in ("traceparent", "tracestate")]
    return tuple(value if len(value.encode()) <= _LONGEST_TRACE else "" for value in values) if values[0] else ()


def _ending(inputs: Mapping[str, list[Any]]) -> Ending:
    """How the prompt of a conversation is to end."""
    turn, same = (
        FLAG.read(name, values[0]) if (values := inputs.get(name, [])) else None
        for name in ("add_generation_prompt", "continue_final_message")
    )
    if turn and same:
        said = "add_generation_prompt and continue_final_message are both true; a prompt ends in one way"
        raise RequestError(said, "send one of them", code="conflict", param="continue_final_message")
    return Ending.SAME_TURN if same else Ending.LAST_TURN if turn is False else Ending.NEXT_TURN


def _sent(inputs: Mapping[str, list[Any]]) -> tuple[str, list[Any]]:
    """The one prompt of a request. An empty text beside another one counts as absent: old clients must send text_input."""
    given = {name: inputs[name] for name in PROMPTS if inputs.get(name)}
    if len(given) > 1:
        given = {name: values for name, values in given.items() if values not in ([b""], [""])} or given
    if len(given) == 1:
        return next(iter(given.items()))
    said = f"a request needs text_input or messages; this one has {'both' if given else 'neither'}"
    if "prompt_token_ids" in given:
        said = f"a request needs one prompt; this one has {' and '.join(CLIENT_NAMES.get(name, name) for name in given)}"
    code: RequestCode = "conflict" if given else "missing_value"
    raise RequestError(said, "send one of them", code=code, param="text_input")


def _rows(tensors: Tensors) -> list[Tensors]:
    """The rows of a request whose tensors have a batch dimension; an input of one row is every row's."""
    count = max((len(array) for array in tensors.values() if array.ndim == 2), default=1)
    for name, array in tensors.items():
        if array.ndim == 2 and len(array) not in (1, count):
            shown = CLIENT_NAMES.get(name, name)
            said = f"{shown} has {len(array)} rows, another input has {count}"
            raise RequestError(said, _ROWS, code="conflict", param=shown)
    if count == 1:
        return [tensors]
    one = {name: array for name, array in tensors.items() if array.ndim != 2 or len(array) == 1}
    many = {name: array for name, array in tensors.items() if name not in one}
    return [{**one, **{name: array[row : row + 1] for name, array in many.items()}} for row in range(count)]


def _tool_use(inputs: Mapping[str, list[Any]]) -> ToolUse | None:
    """The tools among a request's inputs."""
    tools, choice, parallel = (
        values[0] if len(values := inputs.get(name, [])) == 1 else None
        for name in ("tools", "tool_choice", "parallel_tool_calls")
    )
    listed = text("tools", tools) if tools is not None else ""
    if listed.strip() and not inputs.get("messages"):
        said = "tools are given with text_input, which is sent to the model as it is"
        raise RequestError(said, "send messages, or omit them", code="conflict", param="tools")
    return read_tools(
        listed if listed.strip() else "[]",
        None if choice is None else text("tool_choice", choice),
        None if parallel is None else FLAG.read("parallel_tool_calls", parallel),
    )
