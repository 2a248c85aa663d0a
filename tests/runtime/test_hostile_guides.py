"""Guides that nothing satisfies, or that break the library. Run: pytest tests/runtime/test_hostile_guides.py"""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.constrained import Model
from fakes.runtime import run_out
from triune_runtime.constraints import Constraint
from triune_runtime.constraints.guide import Guide
from triune_runtime.errors import RequestError, TriuneError
from triune_runtime.manifest import SamplingDefaults
from triune_runtime.options.parsing import parse
from triune_runtime.request import Chunk
from triune_runtime.starting import step_loop
from triune_runtime.targets.fake.runner import FakeRunner

LOOP = {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}
SCHEMAS: dict[str, dict[str, Any]] = {
    "itself": {"$ref": "#"},
    "a loop": {"$defs": LOOP, "$ref": "#/$defs/a"},
    "a loop behind a key": {"$defs": LOOP, "type": "object", "properties": {"x": {"$ref": "#/$defs/a"}}, "required": ["x"]},
    "any of itself": {"anyOf": [{"$ref": "#"}]},
    "all of itself": {"allOf": [{"$ref": "#"}]},
    "empty pattern": {"type": "string", "pattern": "[^\\s\\S]"},
    "pattern and length": {"type": "string", "pattern": "^a{5}$", "maxLength": 2},
    "no keys": {"type": "object", "required": ["a"], "additionalProperties": False},
    "no items": {"type": "array", "items": False, "minItems": 1},
    "no multiple": {"type": "integer", "multipleOf": 7, "minimum": 1, "maximum": 6},
    "multiple of nothing": {"type": "integer", "multipleOf": 0},
    "a file": {"$ref": "file:///etc/hostname"},
    "a number that is none": {"type": "number", "minimum": float("nan")},
    "an infinite one": {"type": "string", "maxLength": float("inf")},
    "a constant that is none": {"const": [float("nan")]},
    "a default that is none": {"default": float("nan")},
}
OTHERS: dict[str, Guide] = {
    "empty language": ("regex", "[^\\s\\S]"),
    "open escape": ("regex", "a\\"),
    "rule that is itself": ("grammar", "start: start"),
    "two rules": ("grammar", "start: a\na: b\nb: a"),
    "empty terminal": ("grammar", "start: /[^\\s\\S]/"),
    "both of two": ("grammar", "start: A\nA: /a/ & /b/"),
    "schema that is itself": ("grammar", 'start: %json {"$ref":"#"}'),
    "token that is none": ("grammar", "start: <|foo|>"),  # the library panics
    "root that is itself": ("grammar", "root ::= root"),
    "deep": ("grammar", "root ::= " + "(" * 3000 + '"a"' + ")" * 3000),
}
PRIVATE = ("panic", "backtrace", "verbose", "NoExtension", "Python", "Traceback")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(tmp_path_factory.mktemp("model"), thinks=False)


def read(schema: Any) -> Guide:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    inputs = {"response_format": [json.dumps(form)]}
    options = parse(inputs, defaults=SamplingDefaults(), encode_word=lambda word: list(word.encode()), fallback_seed=1)
    assert options.params.guide is not None
    return options.params.guide


def served(model: Model, guide: Guide) -> Chunk | TriuneError:
    """What a client gets: as the server does it, on the compiler's thread."""
    found: list[Constraint | TriuneError | None] = []
    came = threading.Event()
    request = dataclasses.replace(model.request(1, guide, max_tokens=20), guide_input="response_format")
    model.compiler.submit(guide, request, lambda made: (found.append(made), came.set())[1])
    assert came.wait(60)
    (made,) = found
    if isinstance(made, TriuneError):
        return made
    engine = step_loop(model.manifest, FakeRunner(model.manifest.vocab_size, model.manifest.stop_token_ids), model.table)
    engine.submit(request, made)
    (last,) = [event.item for event in run_out(engine) if event.last]
    return last


def check(refusal: object) -> None:
    assert isinstance(refusal, RequestError), refusal
    assert refusal.hint and (refusal.status, refusal.param) == ("INVALID_ARGUMENT", "response_format")
    assert not any(word in str(refusal) for word in PRIVATE), refusal


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_a_schema_without_an_answer_is_the_requests_fault(model: Model, schema: dict[str, Any]) -> None:
    try:
        guide = read(schema)
    except RequestError as refusal:
        check(refusal)
    else:
        check(served(model, guide))


@pytest.mark.parametrize("guide", OTHERS.values(), ids=OTHERS)
def test_a_guide_without_an_answer_is_the_requests_fault(
    model: Model, guide: Guide, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        check(served(model, guide))
    assert "backtrace" not in caplog.text + "".join(capfd.readouterr())


LEAVES = st.sampled_from(
    [
        0, -1, 1.5, 2, 10**6, 1e308, float("nan"), float("inf"), None, True, False, "", "a", "[", "^$", "(a|b)*", "\ud800", "#",
        "#/$defs/a", "string", "integer", "object", "array", "number", "null", "date", "uuid", [], {}, ["a"],
        ["string", "null"], [1, "a", None],
    ]
)  # fmt: skip
KEYS = st.sampled_from(
    [
        "type", "properties", "items", "prefixItems", "anyOf", "oneOf", "allOf", "not", "$ref", "$defs", "enum", "const",
        "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "multipleOf", "minLength", "maxLength", "minItems",
        "maxItems", "required", "minProperties", "additionalProperties", "patternProperties", "if", "uniqueItems", "a",
        "x-guidance", "$id", "$anchor", "$dynamicRef", "title",
    ]
)  # fmt: skip
SOUP = st.recursive(LEAVES, lambda part: st.lists(part, max_size=3) | st.dictionaries(KEYS, part, max_size=5), max_leaves=12)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, SOUP, min_size=1, max_size=5))
def test_no_schema_is_the_servers_fault(model: Model, schema: dict[str, Any]) -> None:
    try:
        last = served(model, read(schema))
    except RequestError as refusal:
        last = refusal
    if not isinstance(last, Chunk):
        check(last)
