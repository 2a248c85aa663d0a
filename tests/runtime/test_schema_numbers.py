"""Numbers of schemas beyond what doubles hold, and objects that are closed. Run: pytest tests/runtime/test_schema_numbers.py"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from triune_runtime.constraints.grammar import GrammarCompiler
from triune_runtime.constraints.guide import json_schema, of_openai, of_vllm
from triune_runtime.errors import RequestError
from triune_runtime.text.vocabulary import TokenBytes

COMPILER = GrammarCompiler(TokenBytes([bytes([byte]) for byte in range(256)]))
EDGE = 2**53
whole = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.builds(lambda base, off: base + off, st.sampled_from([EDGE, -EDGE, 2**54, 2**62, -(2**62)]), st.integers(-6, 6)),
)


def accepts(schema: Mapping[str, Any], text: str, **options: Any) -> bool:
    """Whether `text` may be a whole answer."""
    matcher = COMPILER.compile(json_schema("schema", dict(schema), **options)).matcher.deep_copy()
    return all(matcher.consume_token(byte) and not matcher.is_error() for byte in text.encode()) and matcher.is_accepting()


@pytest.mark.parametrize("kind", ["integer", "number", None])
@settings(max_examples=150, deadline=None)
@given(low=whole, span=st.integers(0, 3000), low_open=st.booleans(), high_open=st.booleans(), off=st.integers(-3, 3))
def test_no_value_outside_its_bounds_is_taken(
    kind: str | None, low: int, span: int, low_open: bool, high_open: bool, off: int
) -> None:
    high = low + span
    schema = {"exclusiveMinimum" if low_open else "minimum": low, "exclusiveMaximum" if high_open else "maximum": high}
    if kind:
        schema["type"] = kind  # type: ignore[assignment]
    try:
        COMPILER.compile(json_schema("schema", dict(schema)))
    except RequestError:
        assume(False)
    for value in (low + off, high + off):
        inside = (low < value if low_open else low <= value) and (value < high if high_open else value <= high)
        assert inside or not accepts(schema, str(value)), (schema, value)


def test_bounds_that_doubles_hold_are_exact() -> None:
    schema = {"type": "integer", "minimum": EDGE + 2, "maximum": EDGE + 6}
    assert [value for value in range(EDGE, EDGE + 9) if accepts(schema, str(value))] == list(range(EDGE + 2, EDGE + 7))
    small = {"type": "integer", "exclusiveMinimum": EDGE - 4, "maximum": EDGE - 1}
    assert [value for value in range(EDGE - 6, EDGE + 3) if accepts(small, str(value))] == [EDGE - 3, EDGE - 2, EDGE - 1]


def test_all_64_bit_integers_may_be_asked_for() -> None:
    schema = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
    assert all(accepts(schema, str(value)) for value in (-(2**62), -5, 0, 5, EDGE + 1, 2**62))
    assert not accepts(schema, str(2**63))


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": [1, EDGE + 1]},
        {"const": {"id": [2**64 + 1]}},
        {"properties": {"a": {"const": EDGE + 1}}},
        {"type": "integer", "minimum": 2**63},
        {"type": "integer", "maximum": -(10**400)},
        {"type": "integer", "maximum": float("inf")},
        {"type": "string", "minLength": 2**40},
        {"anyOf": [{"type": "array", "minItems": 2**29}]},
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(schema: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        COMPILER.compile(json_schema("response_format.json_schema.schema", schema))
    assert caught.value.param == "response_format"
    assert any(key in str(caught.value) for key in ("enum", "const", "minimum", "maximum", "minLength", "minItems"))


def test_whole_numbers_that_doubles_hold_may_be_constants() -> None:
    assert accepts({"enum": [2**60]}, str(2**60)) and not accepts({"enum": [2**60]}, str(2**60 + 1))


def test_sizes_may_be_written_as_floats_and_need_not_be_reached() -> None:
    assert accepts({"type": "string", "minLength": 2.0}, '"ab"') and not accepts({"type": "string", "minLength": 2.0}, '"a"')
    assert accepts({"type": "string", "maxLength": 2**64}, '"ab"')
    assert accepts({"type": "object", "maxProperties": 2**64}, '{"a":1}')


def test_properties_may_have_the_names_of_keywords() -> None:
    schema = {"type": "object", "properties": {"minimum": {"type": "integer"}, "const": {"maximum": 9.0}, "enum": True}}
    assert accepts(schema, '{"minimum":9007199254740993}')


OPEN = {
    "type": "object",
    "properties": {"a": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "null"}}}}},
}


@pytest.mark.parametrize("text", ['{"a":[],"x":1}', '{"a":[{"b":null,"x":1}]}', '{"x":1}'])
def test_objects_are_open_unless_they_are_to_be_closed(text: str) -> None:
    assert accepts(OPEN, text) and not accepts(OPEN, text, closed=True)
    assert accepts(OPEN, '{"a":[{"b":null}]}', closed=True)


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {}}, "additionalProperties": True},
        {"type": "object"},
        {"allOf": [{"properties": {"a": {}}}, {"properties": {"x": {}}}]},
        {"properties": {"a": {}}, "anyOf": [{"properties": {"x": {}}}]},
    ],
)
def test_what_says_its_own_stays_open(schema: dict[str, Any]) -> None:
    assert json_schema("s", schema, closed=True) == json_schema("s", schema)


def test_every_way_to_ask_for_a_schema_can_close_it() -> None:
    closed = json_schema("x", OPEN, closed=True)
    flag = {"disable_additional_properties": True}
    assert of_vllm("structured_outputs", {"json": OPEN} | flag) == closed
    asked = {"type": "json_schema", "json_schema": {"schema": OPEN, "strict": True}}
    assert of_openai("response_format", asked | flag) == closed
    assert of_openai("response_format", json.dumps(asked)) == json_schema("x", OPEN)
    with pytest.raises(RequestError, match="disable_additional_properties"):
        of_openai("response_format", asked | {"disable_additional_properties": "yes"})
