"""What clients say an answer must look like, under each contract's names. Run: pytest tests/runtime/test_guides.py"""

from __future__ import annotations

import json
from typing import Any

import pytest

from triune_runtime.constraints.guide import MAX_CHOICES, MAX_GRAMMAR_LINES, MAX_GUIDE_BYTES, MAX_REFERENCES
from triune_runtime.errors import RequestError
from triune_runtime.manifest import SamplingDefaults
from triune_runtime.options.parsing import parse
from triune_runtime.options.wire import Options

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def read(**inputs: Any) -> Options:
    options = parse(
        {name: [value] for name, value in inputs.items()},
        defaults=SamplingDefaults(),
        encode_word=lambda word: list(word.encode()),
        fallback_seed=1,
    )
    assert Options.from_json(options.to_json()) == options  # as it travels to generate
    return options


def guide(**inputs: Any) -> tuple[str, str] | None:
    return read(**inputs).params.guide


def vllm(name: str = "guided_decoding", **values: Any) -> dict[str, str]:
    return {"sampling_parameters": json.dumps({name: values})}


def openai(**values: Any) -> dict[str, str]:
    return {"response_format": json.dumps(values)}


def tensorrt_llm(kind: str, source: str | None = None) -> dict[str, str]:
    return {"guided_decoding_guide_type": kind} | ({} if source is None else {"guided_decoding_guide": source})


@pytest.mark.parametrize(
    ("inputs", "schema", "lenient"),
    [
        (tensorrt_llm("json"), {}, False),
        (tensorrt_llm("json_schema", json.dumps(SCHEMA)), SCHEMA, False),
        (vllm(json=SCHEMA), SCHEMA, False),
        (vllm(json=json.dumps(SCHEMA)), SCHEMA, False),
        (vllm("structured_outputs", json=SCHEMA, regex=None, backend="xgrammar"), SCHEMA, False),
        (vllm(json_object=True), {"type": "object"}, False),
        (openai(type="json_object"), {"type": "object"}, False),
        (openai(type="json_schema", json_schema={"name": "x", "schema": SCHEMA, "strict": True}), SCHEMA, False),
        (openai(type="json_schema", json_schema={"name": "x", "schema": SCHEMA}), SCHEMA, True),
    ],
)
def test_a_schema_becomes_a_guide(inputs: dict[str, Any], schema: dict[str, Any], lenient: bool) -> None:
    found = guide(**inputs)
    assert found is not None and found[0] == "json_schema"
    source = json.loads(found[1])
    assert source.pop("x-guidance")["lenient"] is lenient
    assert source == schema


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (tensorrt_llm("regex", "[a-z]+"), ("regex", "[a-z]+")),
        (tensorrt_llm("ebnf_grammar", 'root ::= "a"'), ("grammar", 'root ::= "a"')),
        (vllm(regex="a+"), ("regex", "a+")),
        (vllm(grammar='start: "a"'), ("grammar", 'start: "a"')),
        (vllm(choice=["yes", 'n"o\n']), ("grammar", r'start: "yes" | "n\"o\n"')),
        (openai(type="regex", regex="a+"), ("regex", "a+")),
        (openai(type="choice", choice=["ä"]), ("grammar", 'start: "ä"')),
        (openai(type="grammar", grammar='start: "a"'), ("grammar", 'start: "a"')),
        (openai(type="text"), None),
        (vllm(json_object=False), None),
        ({"response_format": ""}, None),
        (tensorrt_llm("", ""), None),
    ],
)
def test_every_other_form_becomes_a_guide(inputs: dict[str, Any], expected: tuple[str, str] | None) -> None:
    assert guide(**inputs) == expected


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (tensorrt_llm("structural_tag", "{}"), "guided_decoding_guide_type is 'structural_tag'; json or json_schema"),
        (tensorrt_llm("regex"), "there is no guided_decoding_guide"),
        (tensorrt_llm("json_schema", "{"), "guided_decoding_guide is not JSON"),
        (tensorrt_llm("json_schema", "[1]"), "a JSON schema, which is an object"),
        (tensorrt_llm("regex", "a") | openai(type="json_object"), "all prescribe"),
        (vllm(structural_tag="{}"), r"guided_decoding.structural_tag is"),
        (vllm(regex="a", choice=["a"]), "regex and choice"),
        (vllm(json=SCHEMA, whitespace_pattern=" "), "guided_decoding.whitespace_pattern is"),
        (vllm(json=SCHEMA, disable_any_whitespace=True), "guided_decoding.disable_any_whitespace is True"),
        (vllm(choice=[]), "guided_decoding.choice"),
        (vllm(choice=["a"] * (MAX_CHOICES + 1)), "a list of 1 to"),
        (vllm(choice=["a", ""]), "not empty"),
        (vllm(choice=[1]), "a string is expected"),
        ({"sampling_parameters": '{"guided_decoding": 3}'}, "guided_decoding is 3"),
        (openai(type="xml"), "response_format.type is 'xml'"),
        (openai(type="json_schema"), "the key schema is expected"),
        (openai(type="regex"), "response_format.regex is None"),
        (openai(type="regex", regex="\ud800"), "not valid UTF-8"),
        (tensorrt_llm("regex", "a" * (MAX_GUIDE_BYTES + 1)), "bytes; at most"),
        (tensorrt_llm("ebnf_grammar", "\n" * (MAX_GRAMMAR_LINES + 1)), "lines; at most"),
        (vllm(json={"anyOf": [{"$ref": "#"}] * (MAX_REFERENCES + 1)}), "references; at most"),
    ],
)
def test_a_wrong_guide_is_refused_by_name(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        guide(**inputs)


@pytest.mark.parametrize(
    ("inputs", "name"),
    [
        (tensorrt_llm("json"), "guided_decoding_guide"),
        (tensorrt_llm("regex", "a"), "guided_decoding_guide"),
        (vllm(regex="a"), "guided_decoding"),
        (vllm("structured_outputs", json=SCHEMA), "structured_outputs"),
        (openai(type="json_object"), "response_format"),
        (openai(type="text"), ""),
        ({}, ""),
    ],
)
def test_the_input_that_a_guide_came_in_travels_with_it(inputs: dict[str, Any], name: str) -> None:
    assert read(**inputs).guide_input == name


@pytest.mark.parametrize("wrong", ['["xml","a"]', '["regex"]', '"regex"', '["regex",""]', '["regex",1]', "3"])
def test_a_guide_sent_to_generate_directly_is_checked(wrong: str) -> None:
    with pytest.raises(RequestError, match="guide"):
        Options.from_json(f'{{"params": {{"guide": {wrong}}}}}')
    assert Options.from_json('{"params": {"guide": ["regex", "a"]}}').params.guide == ("regex", "a")
