"""Tools in prompts, and answers that must call them, for each family of templates. Run: pytest tests/runtime/test_tools.py"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from fakes.repository import CHAT_TEMPLATE, fake_engine
from fakes.schemas import draw, random_schema
from triune_client._tools import ToolCallParser
from triune_runtime.constraints.compiling import ConstraintCompiler
from triune_runtime.constraints.guide import json_schema
from triune_runtime.constraints.tools import with_tools
from triune_runtime.errors import RequestError
from triune_runtime.request import Request
from triune_runtime.serving.prompts import PromptService
from triune_runtime.serving.tensors import strings
from triune_runtime.text.chat import ChatTemplate, parse_messages
from triune_runtime.text.tokenizer import load_token_bytes
from triune_runtime.text.tools import DEEPSEEK_R1, DEEPSEEK_V31, HERMES, LLAMA3, ToolFormat, ToolUse, format_of, read_tools

# What of the published templates decides, in a few lines each.
R1 = (
    "{% for m in messages %}{% if m['role'] == 'assistant' and m['content'] is none %}"
    "<｜tool▁calls▁begin｜>{% for c in m['tool_calls'] %}"
    "{{ '<｜tool▁call▁begin｜>' + c['type'] + '<｜tool▁sep｜>' + c['function']['name'] + '\\n```json\\n' "
    "+ c['function']['arguments'] + '\\n```<｜tool▁call▁end｜>' }}{% endfor %}<｜tool▁calls▁end｜>"
    "{% elif m['role'] == 'tool' %}<｜tool▁output▁begin｜>{{ m['content'] }}<｜tool▁output▁end｜>"
    "{% else %}<{{ m['role'] }}>{{ m['content'] }}{% endif %}{% endfor %}"
)
V31 = R1.replace(
    "c['type'] + '<｜tool▁sep｜>' + c['function']['name'] + '\\n```json\\n'", "c['function']['name'] + '<｜tool▁sep｜>'"
)
V31 = V31.replace("'\\n```<｜tool▁call▁end｜>'", "'<｜tool▁call▁end｜>'")
QWEN = (
    "{% if tools %}<S>{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}{% for m in messages %}"
    "{% if m.tool_calls %}{% for c in m.tool_calls %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}'
    "{% elif m.role == 'tool' %}<R>{{ m.content }}{% else %}<{{ m.role }}>{{ m.content }}{% endif %}{% endfor %}"
)
LLAMA = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}{% if m.tool_calls %}<|python_tag|>{% endif %}"
    "{{ m.content }}{% endfor %}"
)
PLAIN = CHAT_TEMPLATE
WEATHER = {"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": {"type": "object"}}}
TIME = {"type": "function", "function": {"name": "time"}}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "18 °C"},
]


def use(*tools: Any, choice: str | None = None, parallel: bool | None = None) -> ToolUse | None:
    return read_tools(json.dumps(tools), choice, parallel)


def render(template: str, messages: list[dict[str, Any]], *tools: Any) -> str:
    return ChatTemplate(template, {}).render(parse_messages(json.dumps(messages)), tools=use(*tools))


@pytest.mark.parametrize(
    ("template", "form"),
    [(R1, DEEPSEEK_R1), (V31, DEEPSEEK_V31), (QWEN, HERMES), (LLAMA, LLAMA3), (PLAIN, HERMES), (None, HERMES)],
)
def test_the_template_tells_how_calls_are_written(template: str | None, form: ToolFormat) -> None:
    assert format_of(template) == form


def test_a_template_that_reads_tools_gets_them() -> None:
    assert render(QWEN, TURNS[:1], WEATHER) == f"<S>{json.dumps(WEATHER)}<user>Hi"
    assert render(QWEN, TURNS[:1]) == "<user>Hi"


@pytest.mark.parametrize("template", [PLAIN, R1, LLAMA])
def test_a_template_that_knows_no_tools_is_helped_in_the_system_message(template: str) -> None:
    form = format_of(template)
    alone = render(template, TURNS[:1], WEATHER, TIME)
    beside = render(template, [{"role": "system", "content": "Be brief."}, *TURNS[:1]], WEATHER)
    for text in (alone, beside):
        assert json.dumps(WEATHER["function"]) in text
        assert form.write([("NAME", "ARGUMENTS")]) in text
        assert text.index("weather") < text.index("Hi")
    assert json.dumps(TIME["function"]) in alone
    assert "Be brief.\n\n" in beside and beside.count("system") == 1
    assert "ARGUMENTS" not in render(template, TURNS[:1])


def test_earlier_calls_are_written_as_each_template_does() -> None:
    assert '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call><R>18 °C' in render(
        QWEN, TURNS, WEATHER
    )
    written = DEEPSEEK_R1.write([("weather", '{"city": "Paris"}')])
    assert f"{written}<｜tool▁output▁begin｜>18 °C<｜tool▁output▁end｜>" in render(R1, TURNS)
    assert DEEPSEEK_V31.write([("weather", '{"city": "Paris"}')]) in render(V31, TURNS)
    plain = render(PLAIN, TURNS)
    assert f"<|assistant|>{HERMES.write([('weather', CALL['function']['arguments'])])}" in plain  # type: ignore[index]
    assert "<|user|><tool_response>\n18 °C\n</tool_response>" in plain


@pytest.mark.parametrize(
    ("tools", "choice", "message"),
    [
        ("{", None, "tools is"),
        ("{}", None, "a list of at most 128"),
        ("[1]", None, r"tools\[0\] is 1"),
        ('[{"type": "retrieval"}]', None, "only tools of type function"),
        ('[{"type": "function", "function": {"name": "a b"}}]', None, r'tools\[0\] has name "a b"'),
        ('[{"type": "function", "function": {"name": "a", "parameters": 1}}]', None, "parameters 1"),
        (json.dumps([WEATHER, WEATHER]), None, "two functions named weather"),
        (json.dumps([WEATHER]), "never", "tool_choice is"),
        (json.dumps([WEATHER]), '{"type": "function"}', "tool_choice is"),
        (json.dumps([WEATHER]), '{"type": "function", "function": {"name": "x"}}', "tool_choice names 'x'; tools has weather"),
        ("[]", "required", "there are no tools"),
    ],
)
def test_wrong_tools_are_refused_by_name(tools: str, choice: str | None, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_tools(tools, choice, None)


@pytest.mark.parametrize(
    "calls", [[1], [{}], [{"function": {"arguments": "{}"}}], [{"function": {"name": "f", "arguments": 3}}], 3]
)
def test_wrong_calls_in_a_message_are_refused(calls: Any) -> None:
    with pytest.raises(RequestError, match=r"messages\[0\].tool_calls"):
        parse_messages(json.dumps([{"role": "assistant", "content": "", "tool_calls": calls}]))


def test_a_choice_decides_which_tools_there_are() -> None:
    assert use(WEATHER, choice="none") is None and use() is None
    named = use(WEATHER, TIME, choice='{"type": "function", "function": {"name": "time"}}')
    assert named is not None
    assert ([tool.name for tool in named.tools], named.required, named.parallel) == (["time"], True, False)
    both = use(WEATHER, TIME, choice='"required"')
    assert both is not None and (len(both.tools), both.required, both.parallel) == (2, True, True)


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> ConstraintCompiler:
    folder = tmp_path_factory.mktemp("engine")
    manifest = fake_engine(folder)
    return ConstraintCompiler(manifest, load_token_bytes(folder, manifest))


def answers(compiler: ConstraintCompiler, guide: Any, count: int) -> list[str]:
    generator = np.random.default_rng(1)
    table, size = compiler._token_bytes, compiler._manifest.vocab_size
    drawn = [draw(compiler.make(guide, Request(key=1, prompt=(1,))), table, size, generator, 2000) for _ in range(count)]
    return [answer.decode() for answer in drawn if answer is not None]


@pytest.mark.parametrize("form", [HERMES, DEEPSEEK_R1, DEEPSEEK_V31, LLAMA3], ids=lambda form: form.name)
def test_a_required_call_is_always_valid_and_our_clients_find_it(compiler: ConstraintCompiler, form: ToolFormat) -> None:
    schemas = {f"tool{number}": random_schema(random.Random(number), 2) for number in range(6)}
    tools = [{"type": "function", "function": {"name": name, "parameters": s, "strict": True}} for name, s in schemas.items()]
    for choice, parallel in (
        ("required", True),
        ("required", False),
        ('{"type":"function","function":{"name":"tool3"}}', None),
    ):
        chosen = use(*tools, choice=choice, parallel=parallel)
        assert chosen is not None
        found = answers(compiler, with_tools(chosen, form, None), 8)
        assert found
        for answer in found:
            parser = ToolCallParser(form.name, schemas)
            pieces = [parser.push(answer), parser.finish()]
            calls = [call for piece in pieces for call in piece.calls]
            assert calls and not "".join(piece.text for piece in pieces), answer
            assert len(calls) <= (8 if parallel else 1)
            for call in calls:
                jsonschema.validate(call.parsed_arguments, schemas[call.name])


def test_beside_tools_a_schema_holds_for_answers_that_call_nothing(compiler: ConstraintCompiler) -> None:
    chosen = use(TIME)
    assert chosen is not None and with_tools(chosen, HERMES, None) is None
    guide = with_tools(chosen, HERMES, json_schema("x", {"enum": [1, 2]}))
    found = answers(compiler, guide, 40)
    assert {answer for answer in found if not answer.startswith("<tool_call>")} == {"1", "2"}
    assert any(answer.startswith("<tool_call>") for answer in found)
    with pytest.raises(RequestError, match="with tools"):
        with_tools(chosen, HERMES, ("regex", "a"))


def test_the_tokenize_step_makes_a_guide_of_tools(tmp_path: Path) -> None:
    fake_engine(tmp_path)
    service = PromptService.load(tmp_path)
    tensors = {
        "messages": strings(json.dumps(TURNS[:1])), "tools": strings(json.dumps([WEATHER])), "tool_choice": strings("required"),
        "parallel_tool_calls": np.array([False]),
    }  # fmt: skip
    ids, options = service.prompt(tensors, {})
    plain, without = service.prompt({"messages": tensors["messages"]}, {})
    assert options.tool_format == "hermes" and options.params.guide is not None and options.params.guide[0] == "grammar"
    assert without.tool_format == "" and without.params.guide is None
    assert len(ids) > len(plain)
    with pytest.raises(RequestError, match="send messages"):
        service.prompt({"text_input": strings("a"), "tools": tensors["tools"]}, {})
