"""The tokenize step: the inputs of a request -> prompt ids and options."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..allocator import return_free_memory
from ..constraints.tools import with_tools
from ..errors import RequestError, TooLong
from ..manifest import EngineManifest
from ..options.declared import CLIENT_NAMES, VLLM_PROMPT
from ..options.parsing import parse
from ..options.values import FLAG, Real, text
from ..options.wire import Options
from ..text.chat import ChatTemplate, parse_messages
from ..text.reasoning import ends_in_thinking, without_thinking
from ..text.tokenizer import TextTokenizer
from ..text.tools import ToolUse, read_tools
from .tensors import Tensors, flat

_ONE_PROMPT = "send one prompt per request"
_ROWS = "send one row of each input, or as many as there are prompts"
_SPECIAL_BYTES = 64  # more than the text of any special token
_JSON_OVERHEAD = 8  # an escape such as \u0041 takes 6 bytes for one


class PromptService:
    """Turns text or messages into token ids and reads every other input."""

    def __init__(self, manifest: EngineManifest, tokenizer: TextTokenizer) -> None:
        self._manifest = manifest
        self._tokenizer = tokenizer
        self._template = ChatTemplate(manifest.chat_template, manifest.special_tokens, manifest.tool_template)
        longest = max(map(len, tokenizer.token_bytes()))
        self._max_bytes = manifest.limits.max_length * max(longest, _SPECIAL_BYTES)  # a longer text cannot fit

    @classmethod
    def load(cls, folder: Path) -> PromptService:
        """The service of the engine in `folder`."""
        manifest = EngineManifest.load(folder)
        service = cls(manifest, TextTokenizer.load(folder, manifest))
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

    def prompts(self, tensors: Tensors, parameters: Mapping[str, Any]) -> tuple[NDArray[np.int32], list[Options]]:
        """Prompt ids [n] of all rows of a request behind each other, and the options of each row.

        Raises:
            RequestError: as `prompt`, or the inputs have different numbers of rows.
        """
        found = [self.prompt(row, parameters) for row in _rows(tensors)]
        if not found:
            raise RequestError("the request has no rows", _ONE_PROMPT, code="missing_value")
        if len(found) == 1:
            ids, options = found[0]
            return ids, [options]
        told = [dataclasses.replace(options, prompt_tokens=len(ids)) for ids, options in found]
        return np.concatenate([ids for ids, _ in found]), told

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
            guide = with_tools(use, self._template.tool_format, options.params.guide)
            options = dataclasses.replace(
                options,
                params=dataclasses.replace(options.params, guide=guide),
                tool_format=self._template.tool_format.name,
            )
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
        given = {name: inputs[name] for name in ("text_input", VLLM_PROMPT, "messages") if inputs.get(name)}
        if len(given) != 1:
            said = f"a request needs text_input or messages; this one has {'both' if given else 'neither'}"
            raise RequestError(said, "send one of them", code="conflict" if given else "missing_value", param="text_input")
        ((sent, values),) = given.items()
        name = CLIENT_NAMES.get(sent, sent)
        if len(values) != 1:
            said = f"{name} holds {len(values)} strings; one is expected"
            raise RequestError(said, _ONE_PROMPT, code="invalid_value", param=name)
        content = text(name, values[0])
        if name == "messages":
            self._check_size(name, content, self._max_bytes * _JSON_OVERHEAD)
            content = text(name, self._template.render(parse_messages(content), thinking=thinking, tools=use))
            if markers is not None and thinking is False:
                content = without_thinking(content, markers)
        elif thinking is not None:
            said = "enable_thinking is given with text_input, which is sent to the model as it is"
            raise RequestError(said, "send messages, or omit it", code="conflict", param="enable_thinking")
        self._check_size(name, content, self._max_bytes)
        encode = self._tokenizer.encode_rendered if name == "messages" else self._tokenizer.encode
        return encode(content), markers is not None and ends_in_thinking(content, markers)

    def _check_size(self, name: str, content: str, limit: int) -> None:
        """Refuse what cannot fit before working on it: this process serves everyone."""
        if (size := len(content.encode("utf-8"))) > limit:
            tokens = self._manifest.limits.max_length
            raise TooLong(
                f"{name} has {size:,} bytes; the {tokens:,} tokens that this engine holds are at most {limit:,}",
                "shorten the prompt",
                param=name,
            )


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
