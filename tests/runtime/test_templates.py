"""Chat templates render as transformers renders them. Run: pytest tests/runtime/test_templates.py"""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from triune_runtime.errors import ManifestError, RequestError
from triune_runtime.text.chat import ChatTemplate, Ending
from triune_runtime.text.tools import ToolUse, read_tools

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "image_token": "<image>"}
HEADER = """
{{- bos_token }}
{%- if custom_tools is defined %}{% set tools = custom_tools %}{% endif %}
{%- if not date_string is defined %}{% set date_string = "26 Jul 2024" %}{% endif %}
{%- if not tools is defined %}{% set tools = none %}{% endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system_message = "" %}{%- endif %}
{{- "<|head|>system<|end|>\n\n" }}{% if tools is not none %}{{- "Tools:\n" }}
{%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\n\n" }}{%- endfor %}{% endif %}
{{- system_message }}{{- "<|eot|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|head|>' + message['role'] + '<|end|>\n\n'+ message['content'] | trim + '<|eot|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("one call at once!") }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}{{- "}<|eot|>" }}
    {%- else %}{{- "<|head|>ipython<|end|>\n\n" }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}
        {%- else %}{{- message.content }}{%- endif %}{{- "<|eot|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|head|>assistant<|end|>\n\n' }}{%- endif %}
"""
QUERY = """
{%- if tools %}{{- '<|im_start|>system\n' }}{{- "<tools>" }}
    {%- for tool in tools %}{{- "\n" }}{{- tool | tojson }}{%- endfor %}{{- "\n</tools><tool_call><|im_end|>\n" }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string
        and not (message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}{%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role in ("user", "system") %}{{- '<|im_start|>' ~ message.role ~ '\n' ~ message.content ~ '<|im_end|>\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content if message.content is string else '' %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}{%- set reasoning_content = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\n' }}
        {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}
            {{- '<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' }}
        {%- endif %}{{- content }}
        {%- for tool_call in message.tool_calls or [] %}{{- '\n<tool_call>\n{"name": "' + tool_call.function.name }}
            {{- '", "arguments": ' }}{{- tool_call.function.arguments | tojson(ensure_ascii=False) }}{{- '}\n</tool_call>' }}
        {%- endfor %}{{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\n<tool_response>\n' }}{{- message.content }}{{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}
{%- endif %}
"""
ALTERNATING = """{%- set loop_messages = messages[1:] if messages[0]["role"] == "system" else messages %}
{{- bos_token }}
{%- for message in loop_messages %}
  {%- if message["role"] not in ["user", "assistant", "tool"] %}{{- raise_exception("unknown " + message["role"]) }}{%- endif %}
  {%- if message["role"] == "user" %}
    {%- if tools is not none and loop.last %}{{- "[TOOLS] " + tools|tojson(separators=(",", ":")) + "[/TOOLS]" }}{%- endif %}
    {{- "[INST] " + message["content"] + "[/INST]" }}
  {%- elif message.tool_calls is defined and message.tool_calls is not none %}{{- "[TOOL_CALLS] [" }}
    {%- for call in message.tool_calls %}{%- set out = call.function|tojson(sort_keys=true) %}{{- out[:-1] }}
      {%- if not loop.last %}{{- "}, " }}{%- else %}{{- "}]" + eos_token }}{%- endif %}{%- endfor %}
  {%- elif message["role"] == "assistant" %}{{- " " + message["content"]|trim + eos_token }}
  {%- else %}{{- '[TOOL_RESULTS] {"content": ' + message.content|string + "}[/TOOL_RESULTS]" }}{%- endif %}
{%- endfor %}
"""
MARKED = """{% for m in messages %}
{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}
{% endgeneration %}
{% elif m['role'] == 'system' %}
{% continue %}
{% else %}
    <{{ m.role|upper }}> {{ m.content }} {{ loop.cycle('a', 'b') }}
{% endif %}
{% if loop.index > 5 %}{% break %}{% endif %}
{% endfor %}{{ documents is none }}{{ image_token }}{{ nothing }}{{ dict(a=1).items()|list }}{{ range(3)|list|tojson }}
{%- set ns = namespace(n=0) -%}{%- for i in [1, 2, 3] -%}{%- set ns.n = ns.n + i * 2 -%}{%- endfor -%}{{ ns.n // 2 }}{{ 7 % 4 }}
{{ '%s-%d' % ('x', 3) }}{{ 2 ** 5 }}{{ 7 / 2 }}{{ 2.555|round(2) }}{{ "a b"|urlize }}"""
TEMPLATES = {"header": HEADER, "query": QUERY, "alternating": ALTERNATING, "marked": MARKED}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": 'a "quoted" <b> 世界',
            "parameters": {"type": "object", "properties": {}},
        },
    }
]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris", "a": "é<"}}}
CHATS: dict[str, list[dict[str, Any]]] = {
    "user": [{"role": "user", "content": " Hi 世界 "}],
    "system": [{"role": "system", "content": " Be brief.\n"}, {"role": "user", "content": "Hi"}],
    "turns": [
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello."},
        {"role": "user", "content": "And?\n"},
    ],
    "thinking": [
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello.", "reasoning_content": "They greet."},
        {"role": "user", "content": "And?"},
    ],
    "thinking, other name": [
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello.", "reasoning": "They greet."},
    ],
    "call": [
        {"role": "user", "content": "Weather?"}, {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "name": "weather", "content": "18"},
    ],
}  # fmt: skip


def use() -> ToolUse | None:
    return read_tools(json.dumps(TOOLS), None, None)


def reference() -> Any:
    transformers = pytest.importorskip("transformers")
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, "a"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **TOKENS)


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("with_tools", [False, True])
@pytest.mark.parametrize("thinking", [None, False])
def test_a_chat_is_rendered_as_transformers_renders_it(name: str, chat: str, with_tools: bool, thinking: bool | None) -> None:
    source, messages = TEMPLATES[name], CHATS[chat]
    if name == "marked" and (with_tools or chat == "call"):  # knows neither, so that words of ours are put in
        return
    given = {} if thinking is None else {"enable_thinking": thinking, "thinking": thinking}
    expected = reference().apply_chat_template(
        messages, chat_template=source, tools=TOOLS if with_tools else None, tokenize=False, add_generation_prompt=True, **given
    )
    found = ChatTemplate(source, TOKENS).render(messages, tools=use() if with_tools else None, thinking=thinking)
    assert found == expected


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("answer", ["Once upon", "It is ", "  so it\n"])
def test_an_answer_is_continued_as_transformers_continues_it(name: str, answer: str) -> None:
    messages = [{"role": "user", "content": "Tell"}, {"role": "assistant", "content": answer}]
    expected = reference().apply_chat_template(
        messages, chat_template=TEMPLATES[name], tokenize=False, continue_final_message=True
    )
    assert ChatTemplate(TEMPLATES[name], TOKENS).render(messages, ending=Ending.SAME_TURN) == expected


def test_a_final_message_that_the_template_does_not_show_is_not_continued() -> None:
    messages = [{"role": "assistant", "content": "x"}]
    with pytest.raises(RequestError, match="changes the last message"):
        ChatTemplate("{{ messages[0].content|upper }}", {}).render(messages, ending=Ending.SAME_TURN)
    with pytest.raises(RequestError, match="the last message has no text"):
        ChatTemplate(HEADER, TOKENS).render([{"role": "assistant", "content": " "}], ending=Ending.SAME_TURN)


def test_the_template_for_tools_is_used_where_there_are_tools() -> None:
    template = ChatTemplate("plain {{ tools }}", {}, "with {{ tools|length }}<|python_tag|>")
    assert template.render(CHATS["user"]) == "plain None"
    assert template.render(CHATS["user"], tools=use()) == "with 1<|python_tag|>"
    assert template.tool_format.name == "llama3"


def test_json_is_written_as_asked() -> None:
    source = "{{ tools|tojson(false, separators=(',', ':'), sort_keys=true) }}{{ 'é'|tojson(true) }}{{ [1]|tojson(indent=1) }}"
    expected = reference().apply_chat_template(CHATS["user"], chat_template=source, tools=TOOLS, tokenize=False)
    assert ChatTemplate(source, {}).render(CHATS["user"], tools=use()) == expected


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ '%(x)s' % {} }}", "KeyError 'x'"),
        ("{{ 1 / 0 }}", "ZeroDivisionError division by zero"),
        ("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", "RecursionError"),
        ("{{ 1e308 * 10 | int }}{{ (10 ** 400) * 1.0 }}", "OverflowError"),
        ("{{ messages[5]['role'] }}", "has no"),
        ("{% include 'x' %}", "TypeError"),
        ("{{ raise_exception('no\n  system') }}", "no system"),
        ("{% set ns = namespace(_x=1) %}", "no '_x'"),
        ("{{ messages.append(1) }}", "is unsafe"),
    ],
)
def test_whatever_goes_wrong_in_a_template_is_the_request_s_refusal_in_one_line(source: str, said: str) -> None:
    with pytest.raises(RequestError, match="the model's chat template refuses these messages: ") as caught:
        ChatTemplate(source, {}).render(CHATS["user"])
    message = str(caught.value)
    assert said in message and "\n" not in message and ".py" not in message and caught.value.status == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("a\nb {% for x in %}", "does not compile: line 2: "),
        ("{% if true %}", "does not compile: line 1: "),
        ("{% nonsense %}", "unknown tag 'nonsense'"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "RecursionError"),
    ],
)
def test_a_template_that_does_not_compile_is_refused_with_its_line(source: str, said: str) -> None:
    with pytest.raises(ManifestError, match="the chat template does not compile") as caught:
        ChatTemplate(source, {})
    assert said in str(caught.value)
    with pytest.raises(ManifestError, match="the chat template tool_use does not compile"):
        ChatTemplate("fine", {}, source)
