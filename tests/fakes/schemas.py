"""Random JSON schemas of what structured answers are made of, and answers drawn at random under a constraint."""

from __future__ import annotations

import functools
import random
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune_runtime.constraints import Constraint
from triune_runtime.constraints.bits import unpacked, words
from triune_runtime.text.vocabulary import TokenBytes

Schema = dict[str, Any]
_PATTERNS = (
    "^[a-z]{2,5}$",
    "^[A-Z][a-z]{1,6}-[0-9]{3}$",
    "^(red|green|blue)$",
    r"^\d{4}-\d{2}$",
    "^#[0-9a-f]{6}$",
    r"^\w{1,8}@[a-z]{1,8}\.org$",
)


def random_schema(chance: random.Random, depth: int = 3) -> Schema:
    """A schema whose answers are objects, nested up to `depth` deep."""
    names = chance.sample(["id", "name", "größe", "tags", "a b", "state", "x", "items", "0", 'q"t'], chance.randint(1, 4))
    schema: Schema = {"type": "object", "properties": {name: _value(chance, depth - 1) for name in names}}
    schema["required"] = [name for name in names if chance.random() < 0.7]
    if chance.random() < 0.8:
        schema["additionalProperties"] = False
    if chance.random() < 0.2:
        schema["$defs"] = {"leaf": _leaf(chance)}
        schema["properties"]["ref"] = {"$ref": "#/$defs/leaf"}
    return schema


def _value(chance: random.Random, depth: int) -> Schema:
    kind = chance.random()
    if depth > 0 and kind < 0.2:
        nested = random_schema(chance, depth)
        nested.get("properties", {}).pop("ref", None)
        nested.pop("$defs", None)
        return nested
    if depth > 0 and kind < 0.4:
        least = chance.randint(0, 2)
        return {
            "type": "array",
            "items": _value(chance, depth - 1),
            "minItems": least,
            "maxItems": least + chance.randint(0, 3),
        }
    if depth > 0 and kind < 0.5:
        return {"anyOf": [_value(chance, depth - 1), {"type": "null"}]}
    return _leaf(chance)


def _leaf(chance: random.Random) -> Schema:
    low = chance.randint(-1000, 1000)
    return chance.choice(
        [
            {"enum": chance.sample(["yes", "no", "maybe", 1, 2.5, None, True, "ü", "\n"], chance.randint(1, 4))},
            {"const": chance.choice(["fixed", 7, False])},
            {"type": "string", "pattern": chance.choice(_PATTERNS)},
            {"type": "string", "minLength": chance.randint(0, 4), "maxLength": chance.randint(4, 12)},
            {"type": "integer", "minimum": low, "maximum": low + chance.randint(0, 500)},
            {"type": "number", "minimum": low, "exclusiveMaximum": low + 10},
            {"type": "integer", "multipleOf": chance.randint(2, 9), "minimum": 0, "maximum": 999},
            {"type": "boolean"},
            {"type": "string", "format": chance.choice(["date", "uuid", "ipv4"])},
        ]
    )


def draw(constraint: Constraint, token_bytes: TokenBytes, size: int, generator: np.random.Generator, most: int) -> bytes | None:
    """An answer whose every token is drawn from those allowed; None if it has not ended after `most` tokens.

    All are alike, but now and then one is drawn from those that close something, where there are such: else a text whose length
    is free would go on for thousands of tokens.
    """
    closing = _closing(token_bytes)
    answer = b""
    for _ in range(most):
        bits = np.zeros(words(size), np.uint32)
        assert constraint.settle(time.monotonic() + 60)
        constraint.allowed(bits)
        may = unpacked(bits, size)
        allowed = np.flatnonzero(may)
        assert len(allowed), f"after {answer[-80:]!r}: {constraint.error}"
        hurry = closing[may[closing]] if generator.random() < 0.3 else closing[:0]
        token = int(generator.choice(hurry if len(hurry) else allowed))
        constraint.push(token)
        answer += token_bytes[token]
        constraint.settle(time.monotonic() + 60)
        if constraint.finished:
            return answer
    return None


@functools.cache
def _closing(token_bytes: TokenBytes) -> NDArray[np.int64]:
    return np.array([token for token, raw in enumerate(token_bytes) if raw[:1] in (b'"', b"}", b"]")], np.int64)
