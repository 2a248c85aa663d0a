"""Whether a value fits a JSON schema: the keywords that requests of this tool use, and no others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,),
    "null": (type(None),),
}  # fmt: skip


def misfit(value: Any, schema: Mapping[str, Any], where: str = "the answer") -> str | None:
    """What of `value` does not fit, None if all does. Keywords that are not known here are passed over."""
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} is {value!r:.60}; the schema allows {schema['enum']!r:.80}"
    if (kind := schema.get("type")) is not None:
        kinds = [kind] if isinstance(kind, str) else kind
        if not any(_is(value, one) for one in kinds):
            return f"{where} is {value!r:.60}; the schema wants {' or '.join(kinds)}"
    if isinstance(value, dict):
        return _misfit_object(value, schema, where)
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            return f"{where} has {len(value)} items; the schema allows {schema.get('minItems', 0)} to {schema.get('maxItems')}"
        if isinstance(items := schema.get("items"), Mapping):
            return next((m for n, v in enumerate(value) if (m := misfit(v, items, f"{where}[{n}]"))), None)
    if isinstance(value, str) and not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        return (
            f"{where} has {len(value)} characters; the schema allows {schema.get('minLength', 0)} to {schema.get('maxLength')}"
        )
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        return f"{where} is {value}; the schema allows {schema.get('minimum')} to {schema.get('maximum')}"
    return None


def _misfit_object(value: dict[str, Any], schema: Mapping[str, Any], where: str) -> str | None:
    if missing := [name for name in schema.get("required", ()) if name not in value]:
        return f"{where} lacks {', '.join(missing)}"
    properties = schema.get("properties", {})
    if schema.get("additionalProperties") is False and (more := [name for name in value if name not in properties]):
        return f"{where} has {', '.join(more)}, which the schema does not allow"
    return next((m for n, s in properties.items() if n in value and (m := misfit(value[n], s, f"{where}.{n}"))), None)


def _is(value: Any, kind: str) -> bool:
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(kind, (object,))) and not (isinstance(value, bool) and kind in ("integer", "number"))
