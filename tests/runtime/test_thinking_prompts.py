"""Thinking on and off in the prompts of each family. Run: pytest tests/runtime/test_thinking_prompts.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.repository import fake_engine
from fakes.thinking import QWEN3, R1, R1_0528, V3_1, thinking_engine, thinking_tokenizer
from triune_runtime.errors import RequestError
from triune_runtime.manifest import EngineManifest
from triune_runtime.options.wire import Options
from triune_runtime.serving.prompts import PromptService

USER = [{"role": "user", "content": "hi"}]
CLOSED = "<think>\n\n</think>\n\n"


def messages(*turns: Any) -> Any:
    return np.array([json.dumps(list(turns) or USER).encode()], np.object_)


def ask(folder: Path, template: str | None, **inputs: Any) -> tuple[str, Options]:
    """The prompt's text and the options that go with it."""
    thinking_engine(folder, template) if template else fake_engine(folder)
    ids, options = PromptService.load(folder).prompt({"messages": messages()} | inputs, {})
    return thinking_tokenizer().decode(ids.tolist(), skip_special_tokens=False), options


ON, OFF = np.array([True]), np.array([False])


@pytest.mark.parametrize(
    ("template", "by_itself", "on", "off"),
    [
        (R1, "<think>\n", "<think>\n", CLOSED),
        (R1_0528, "", "", CLOSED),
        (QWEN3, "", "", CLOSED),
        (V3_1, "</think>", "<think>", "</think>"),
    ],
    ids=["R1", "R1-0528", "Qwen3", "V3.1"],
)
def test_thinking_is_switched_as_the_family_switches_it(
    tmp_path: Path, template: str, by_itself: str, on: str, off: str
) -> None:
    for given, end in (({}, by_itself), ({"enable_thinking": ON}, on), ({"enable_thinking": OFF}, off)):
        prompt, options = ask(tmp_path, template, **given)
        assert prompt == "<U>hi<A>" + end
        assert options.thinking_open == (end.strip() == "<think>")
        assert options.separate_reasoning
        assert options.enable_thinking is None


@pytest.mark.parametrize(
    ("template", "kept"), [(R1, "<A>four<|end|>"), (V3_1, "<A>four<|end|>"), (QWEN3, "<A>four")], ids=["R1", "V3.1", "Qwen3"]
)
def test_a_template_decides_about_the_thinking_of_earlier_turns(tmp_path: Path, template: str, kept: str) -> None:
    turns = [*USER, {"role": "assistant", "content": "four", "reasoning_content": "2 + 2"}, *USER]
    prompt, _ = ask(tmp_path, template, messages=messages(*turns))
    assert prompt.startswith(f"<U>hi{kept}<U>hi<A>")
    assert "2 + 2" not in prompt
    after_question = [*USER, {"role": "assistant", "content": "four", "reasoning_content": "2 + 2"}]
    prompt, _ = ask(tmp_path, template, messages=messages(*after_question))
    assert ("2 + 2" in prompt) == (template == QWEN3)


def test_thinking_inside_an_earlier_answer_is_dropped_by_r1(tmp_path: Path) -> None:
    turns = [*USER, {"role": "assistant", "content": "<think>\n2 + 2\n</think>four"}, *USER]
    assert ask(tmp_path, R1, messages=messages(*turns))[0] == "<U>hi<A>four<|end|><U>hi<A><think>\n"


def test_a_raw_prompt_is_one_text_unless_its_sender_asks(tmp_path: Path) -> None:
    thinking_engine(tmp_path)
    service = PromptService.load(tmp_path)

    def raw(text: str, **inputs: Any) -> Options:
        return service.prompt({"text_input": np.array([text.encode()], np.object_)} | inputs, {})[1]

    assert raw("hi").separate_reasoning is None
    assert raw("hi", separate_reasoning=ON).separate_reasoning
    assert not raw("hi", separate_reasoning=ON).thinking_open
    assert raw("<U>hi<A><think>\n").thinking_open
    assert not raw("<U>hi<A><think>\nhm</think>").thinking_open
    assert raw("<A><think>", thinking_budget=np.array([3])).params.thinking_budget == 3
    with pytest.raises(RequestError, match="enable_thinking is given without messages"):
        raw("hi", enable_thinking=OFF)


def test_an_echo_is_one_text(tmp_path: Path) -> None:
    assert ask(tmp_path, R1, exclude_input_in_output=OFF)[1].separate_reasoning is None
    with pytest.raises(RequestError, match="an echo is one whole text"):
        ask(tmp_path, R1, exclude_input_in_output=OFF, separate_reasoning=ON)
    assert ask(tmp_path, R1, separate_reasoning=OFF)[1].separate_reasoning is None


def test_a_model_that_does_not_think_says_so(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="this model does not think"):
        ask(tmp_path, None, enable_thinking=ON)
    for given in ({}, {"enable_thinking": OFF}, {"separate_reasoning": ON}):
        prompt, options = ask(tmp_path, None, **given)
        assert prompt == "<|user|>hi<|assistant|>"
        assert (options.separate_reasoning, options.thinking_open) == (None, False)


def test_the_publishers_sampling_is_the_default_and_greedy_is_what_temperature_0_asks(tmp_path: Path) -> None:
    params = ask(tmp_path, R1)[1].params
    assert (params.temperature, params.top_p) == (0.6, 0.95)
    assert ask(tmp_path, R1, temperature=np.array([0], np.float32))[1].params.temperature == 0
    params = ask(tmp_path, R1, temperature=np.array([0.9], np.float32), top_p=np.array([0.5], np.float32))[1].params
    assert (params.temperature, params.top_p) == (pytest.approx(0.9), 0.5)


def test_markers_survive_the_manifest(tmp_path: Path) -> None:
    manifest = thinking_engine(tmp_path)
    assert EngineManifest.load(tmp_path) == manifest
    assert manifest.reasoning is not None and isinstance(EngineManifest.load(tmp_path).reasoning, type(manifest.reasoning))
    plain = fake_engine(tmp_path)
    assert EngineManifest.load(tmp_path) == plain and plain.reasoning is None
