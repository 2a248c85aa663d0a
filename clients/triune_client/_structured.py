"""Answers as Python values: a dataclass or pydantic model -> JSON schema, and an answer's JSON -> an instance of it.

pydantic is not needed and not imported: its models bring their own methods.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from ._errors import InvalidAnswer

_SIMPLE = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def format_json(response_format: Any) -> str:
    """OpenAI's `response_format` as JSON, for a type or for the object itself.

    Raises:
        TypeError: it is neither, or a type that has no JSON schema.
    """
    if isinstance(response_format, Mapping):
        return json.dumps(dict(response_format), ensure_ascii=False)
    schema = schema_of(response_format)
    inner = {"name": getattr(response_format, "__name__", "answer"), "schema": schema, "strict": True}
    return json.dumps({"type": "json_schema", "json_schema": inner}, ensure_ascii=False)


def schema_of(kind: Any) -> dict[str, Any]:
    """The JSON schema of a dataclass, a pydantic model, or any type that these are made of.

    Raises:
        TypeError: it has none.
    """
    if hasattr(kind, "model_json_schema"):
        closed: dict[str, Any] = _closed(kind.model_json_schema())
        return closed
    definitions: dict[str, Any] = {}
    schema = _schema(kind, definitions)
    return schema | ({"$defs": definitions} if definitions else {})


def parse(kind: Any, text: str) -> Any:
    """An answer as an instance of `kind`; as plain JSON values if it is an object of OpenAI's.

    Raises:
        InvalidAnswer: it is not one.
    """
    if hasattr(kind, "model_validate_json"):
        try:
            return kind.model_validate_json(text)
        except ValueError as error:  # pydantic's own is one
            raise InvalidAnswer(f"the answer is not a {kind.__name__}: {error}", partial=text) from error
    try:
        value = json.loads(text)
        return value if isinstance(kind, Mapping) else _value(kind, value)
    except (ValueError, TypeError) as error:
        raise InvalidAnswer(f"the answer is not what response_format says: {error}", partial=text) from error


def is_json(response_format: Any) -> bool:
    """Whether an answer of this format is JSON."""
    return not isinstance(response_format, Mapping) or response_format.get("type") in ("json_object", "json_schema")


def _closed(schema: Any) -> Any:
    """A schema whose objects have no further properties, unless it says that they may: a model would invent some."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    return {"additionalProperties": False} | closed if isinstance(closed.get("properties"), dict) else closed


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return {}
    if origin is typing.Annotated:
        return _schema(arguments[0], definitions)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(one, definitions) for one in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (list, set, frozenset) or (origin is tuple and arguments[1:] == (...,)):
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    if origin is tuple:
        items = [_schema(one, definitions) for one in arguments]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
    if origin is dict and arguments[0] is str:
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    if kind in _SIMPLE:
        return {"type": _SIMPLE[kind]}
    if kind in (list, dict):
        return {"type": "array" if kind is list else "object"}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {"enum": [member.value for member in kind]}
    if hasattr(kind, "model_json_schema") or not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise TypeError(f"{kind!r} has no JSON schema here; expected dataclasses of JSON's types, or one pydantic model")
    if kind.__name__ not in definitions:
        definitions[kind.__name__] = {}  # so that a class which holds itself ends
        hints = typing.get_type_hints(kind, include_extras=True)
        made = [f for f in dataclasses.fields(kind) if f.init]
        definitions[kind.__name__] = {
            "type": "object",
            "properties": {f.name: _schema(hints[f.name], definitions) for f in made},
            "required": [f.name for f in made if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING],
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _value(kind: Any, value: Any) -> Any:
    """`value`, which came from JSON, as a `kind`.

    Raises:
        TypeError, ValueError: it is not one.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is typing.Annotated:
        return _value(arguments[0], value)
    if origin in (Union, types.UnionType):
        return _first_that_fits(arguments, value)
    if origin is Literal:
        return _expect(value in arguments, value, f"one of {arguments}")
    if origin is tuple and arguments[1:] != (...,):
        _expect(isinstance(value, list) and len(value) == len(arguments), value, f"{len(arguments)} values")
        return tuple(_value(one, item) for one, item in zip(arguments, value, strict=True))
    if origin in (list, set, frozenset, tuple):
        _expect(isinstance(value, list), value, "a list")
        return origin(_value(arguments[0], item) for item in value)
    if origin is dict:
        _expect(isinstance(value, dict), value, "an object")
        return {key: _value(arguments[1], item) for key, item in value.items()}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(value)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        _expect(isinstance(value, dict), value, f"an object of {kind.__name__}")
        hints = typing.get_type_hints(kind, include_extras=True)
        return kind(**{name: _value(hints[name], item) if name in hints else item for name, item in value.items()})
    if kind is float:
        return float(_expect(isinstance(value, int | float) and not isinstance(value, bool), value, "a number"))
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)  # to JSON, 1.0 is an integer
    return _expect(
        isinstance(value, kind) and (kind is bool or not isinstance(value, bool)), value, f"a value of {kind.__name__}"
    )


def _first_that_fits(kinds: tuple[Any, ...], value: Any) -> Any:
    for one in kinds:
        try:
            return _value(one, value)
        except (TypeError, ValueError):
            continue
    raise ValueError(f"{value!r:.80} is none of {kinds}")


def _expect(holds: bool, value: Any, expected: str) -> Any:
    if not holds:
        raise ValueError(f"{value!r:.80} came where {expected} is expected")
    return value
