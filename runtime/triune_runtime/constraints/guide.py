"""What a client asks an answer to look like -> a guide: (kind, source). Knows the clients' names; compiles nothing.

Kinds: "json_schema" (a JSON schema), "regex", "grammar" (Lark, or GBNF, which has `::=`). Anything else becomes one of these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import RequestError
from ..options.values import FLAG, input_of, refuse, text
from .schemas import prepared

Guide = tuple[str, str]
KINDS = ("json_schema", "regex", "grammar")
# What a guide may cost while it is compiled and while it is used is bounded by these and by the limits in `grammar.py`.
MAX_GUIDE_BYTES = 131_072
MAX_GRAMMAR_LINES = MAX_REFERENCES = 1000  # the library compiles rules and references by recursion
MAX_CHOICES = 1000
_HINT = "see docs/structured.md"
_TENSORRT_LLM = ("json", "json_schema", "regex", "ebnf_grammar")
_VLLM = ("json", "json_object", "regex", "choice", "grammar")
_VLLM_SETTINGS = frozenset({"backend", "_backend", "disable_fallback", "_backend_was_auto"})  # which of vLLM's libraries
CLOSED = "disable_additional_properties"  # vLLM's word, here of `response_format` too
_OPENAI = ("text", "json_object", "json_schema", "regex", "choice", "grammar")


def of_tensorrt_llm(kind: Any, guide: Any) -> Guide:
    """TensorRT-LLM's pair of tensors, `guided_decoding_guide_type` and `guided_decoding_guide`.

    Raises:
        RequestError: names the tensor and what is wrong.
    """
    name, source = text("guided_decoding_guide_type", kind), text("guided_decoding_guide", guide or "")
    if name == "json":
        return json_schema("guided_decoding_guide", True)
    if name not in _TENSORRT_LLM:
        raise refuse("guided_decoding_guide_type", name, f"{' or '.join(_TENSORRT_LLM)} is served")
    if not source:
        said = f"guided_decoding_guide_type is {name} but there is no guided_decoding_guide"
        raise RequestError(said, "send both", code="missing_value", param="guided_decoding_guide")
    if name == "json_schema":
        return json_schema("guided_decoding_guide", source)
    return _checked("guided_decoding_guide", "regex" if name == "regex" else "grammar", source)


def of_vllm(name: str, value: Any) -> Guide | None:
    """vLLM's `guided_decoding` or `structured_outputs`: an object with one of json, json_object, regex, choice, grammar.

    Raises:
        RequestError: names the key and what is wrong.
    """
    if isinstance(value, (str, bytes)):
        value = _parsed(name, text(name, value))
    if not isinstance(value, Mapping):
        raise refuse(name, value, "an object is expected")
    given = {key: entry for key, entry in value.items() if entry is not None and key not in _VLLM_SETTINGS}
    given = {key: entry for key, entry in given.items() if entry is not False}  # what is off asks for nothing
    closed = FLAG.check(f"{name}.{CLOSED}", given.pop(CLOSED, False))
    if unknown := sorted(given.keys() - set(_VLLM)):
        raise refuse(f"{name}.{unknown[0]}", given[unknown[0]], f"{' or '.join(_VLLM)} is served")
    if len(given) > 1:
        said = f"{name} has {' and '.join(given)}; one of them is expected"
        raise RequestError(said, "send one", code="conflict", param=name)
    for key, entry in given.items():
        where = f"{name}.{key}"
        if key == "json":
            return json_schema(where, entry, closed=closed)
        if key == "json_object":
            return _any_object()
        if key == "choice":
            return choice(where, entry)
        return _checked(where, key, text(where, entry))
    return None


def of_openai(name: str, value: Any) -> Guide | None:
    """OpenAI's `response_format`, and as extensions {"type": "regex" or "grammar" or "choice"} with a key of that name.

    Raises:
        RequestError: names the key and what is wrong.
    """
    if isinstance(value, (str, bytes)):
        value = _parsed(name, text(name, value))
    if not isinstance(value, Mapping):
        raise refuse(name, value, "an object is expected")
    kind = value.get("type")
    if kind not in _OPENAI:
        raise refuse(f"{name}.type", kind, f"{' or '.join(_OPENAI)} is served")
    if kind == "text":
        return None
    if kind == "json_object":
        return _any_object()
    if kind == "choice":
        return choice(f"{name}.choice", value.get("choice"))
    if kind != "json_schema":
        return _checked(f"{name}.{kind}", kind, text(f"{name}.{kind}", value.get(kind)))
    inner = value.get("json_schema")
    if not isinstance(inner, Mapping) or "schema" not in inner:
        raise refuse(f"{name}.json_schema", inner, "an object with the key schema is expected")
    closed = FLAG.check(f"{name}.{CLOSED}", value.get(CLOSED) or False)
    return json_schema(f"{name}.json_schema.schema", inner["schema"], lenient=not inner.get("strict"), closed=closed)


def json_schema(name: str, schema: Any, *, lenient: bool = False, closed: bool = False) -> Guide:
    """An answer that is JSON and valid by `schema`: JSON text, an object, or true for any JSON.

    Args:
        lenient: what the grammar library cannot enforce is left out; otherwise it is refused.
        closed: see `prepared`.

    Raises:
        RequestError: it is no schema, or has a value that cannot be kept.
    """
    if isinstance(schema, (str, bytes)):
        schema = _parsed(name, text(name, schema))
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise refuse(name, schema, "a JSON schema, which is an object, is expected")
    kept = with_settings(prepared(name, schema, closed=closed), lenient=lenient)
    return _checked(name, "json_schema", json.dumps(kept, ensure_ascii=False))


def with_settings(schema: dict[str, Any], *, lenient: bool) -> dict[str, Any]:
    """A schema with what the library is to do about white space: at most a line break and its indentation, or a space.

    Unbounded, a weak model fills its answer with it.
    """
    return schema | {"x-guidance": {"whitespace_pattern": r"\n {0,24}| ", "lenient": lenient}}


def choice(name: str, words: Any) -> Guide:
    """An answer that is one of `words`.

    Raises:
        RequestError: no list of texts, or too many.
    """
    if not isinstance(words, (list, tuple)) or not 0 < len(words) <= MAX_CHOICES:
        raise refuse(name, words, f"a list of 1 to {MAX_CHOICES:,} texts is expected")
    texts = [text(name, word) for word in words]
    if not all(texts):
        raise refuse(name, words, "texts that are not empty are expected")
    return _checked(name, "grammar", "start: " + " | ".join(quoted(word) for word in texts))


def check_guide(name: str, guide: Any) -> Guide:
    """A guide as it travels, as a tuple or a list.

    Raises:
        RequestError: no client's input becomes this; names what is wrong.
    """
    if not isinstance(guide, (tuple, list)) or len(guide) != 2 or not all(isinstance(part, str) for part in guide):
        raise refuse(name, guide, "a kind and a source are expected")
    if guide[0] not in KINDS:
        raise refuse(name, guide[0], f"{' or '.join(KINDS)} is expected")
    return _checked(name, *guide)


class _GuideReader:
    """A guide among the values that travel; see `options/values.py`."""

    annotation = "tuple[str, str]"
    values = "a kind and a source"

    def read(self, name: str, value: Any) -> Guide:
        return check_guide(name, value)

    check = read


GUIDE = _GuideReader()


def quoted(word: str) -> str:
    """A text as a literal of a Lark grammar."""
    return json.dumps(word, ensure_ascii=False)


def _any_object() -> Guide:
    return json_schema("json_object", {"type": "object"})


def _checked(name: str, kind: str, source: str) -> Guide:
    text(name, source)  # JSON can carry half a surrogate pair
    if not source:
        raise refuse(name, source, "a text that is not empty is expected")
    if (size := len(source.encode())) > MAX_GUIDE_BYTES:
        raise _too_large(name, f"{size:,} bytes", MAX_GUIDE_BYTES)
    if kind == "grammar" and (lines := source.count("\n")) > MAX_GRAMMAR_LINES:
        raise _too_large(name, f"{lines:,} lines", MAX_GRAMMAR_LINES)
    if (references := source.count('"$ref"')) > MAX_REFERENCES:
        raise _too_large(name, f"{references:,} references", MAX_REFERENCES, "send fewer")
    return kind, source


def _too_large(name: str, size: str, most: int, hint: str = "send a smaller one") -> RequestError:
    said = f"{name} has {size}; at most {most:,} are served"
    return RequestError(said, hint, code="too_large", param=input_of(name))


def _parsed(name: str, source: str) -> Any:
    try:
        return json.loads(source)
    except ValueError as error:
        raise RequestError(f"{name} is not JSON: {error}", _HINT, code="invalid_value", param=input_of(name)) from None
