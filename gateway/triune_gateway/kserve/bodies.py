"""What a body may look like before the server's own parser, which recurses, sees it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from .limits import Limits
from .refusal import Refusal

HEADER_LENGTH = b"inference-header-content-length"  # of KServe's binary tensors: how much of a body is JSON
# A request that is to end another: `cancel`, or `stop` as TensorRT-LLM has it, as a member and as a tensor's name.
_ENDING = re.compile(rb'"(?:cancel|stop)"\s*:\s*(?:true|1|\[\s*true)|"name"\s*:\s*"(?:cancel|stop)"')
# More answers than one: to a prompt, or to the rows of a request.
_SEVERAL = re.compile(
    rb'"(?:n|best_of|num_return_sequences|sampling_param_best_of)\\?"|"text_input"\s*:\s*\[|'
    rb'"shape"\s*:\s*\[\s*(?:[2-9]|\d\d+)\s*,\s*1\s*\]'
)
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)  # linear in any text; one without an end goes to the end
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_OPENING = b"[{"
_MOST_VALUES = 2**31 - 1  # of a tensor


def check_body(body: bytes, headers: Mapping[bytes, bytes], limits: Limits, *, tensors: bool = False) -> None:
    """Check the JSON of a body, and that the rest of it is where it is said to be.

    Args:
        tensors: whether the JSON describes tensors.

    Raises:
        Refusal: it lies too deep, holds too much, ends elsewhere, or a tensor's shape is none that there could be.
    """
    if (said := headers.get(HEADER_LENGTH)) is not None:
        if not said.isdigit() or len(said) > 12 or int(said) > len(body):
            wrong = said.decode("latin-1")
            raise Refusal(400, f"Inference-Header-Content-Length is {wrong!r}; the body has {len(body):,} bytes")
        body = body[: int(said)]
    check_json(body, limits)
    if tensors:
        _check_shapes(body)


def ends_another(body: bytes) -> bool:
    """Whether a request may be one that ends another, which frees a place. Some that do not are taken for such."""
    return _ENDING.search(body) is not None


def places(body: bytes) -> int:
    """How many answers a request asks for, at least; where it says more of that than is read here, two."""
    return 1 if _SEVERAL.search(body) is None else 2


def check_json(text: bytes, limits: Limits) -> None:
    """Check how deep and how many the values of a JSON text are. Whether it is JSON at all, its parser says.

    Raises:
        Refusal: too deep, or too many.
    """
    if text.count(b"[") + text.count(b"{") + text.count(b",") < limits.json_depth:
        return  # most requests
    bare = _STRING.sub(b"", text)
    brackets = bare.translate(None, _NOT_BRACKETS)
    if bare.count(b",") + len(brackets) > limits.json_elements:
        raise Refusal(413, f"the request's JSON has more than {limits.json_elements:,} elements")
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in _OPENING else -1
        if depth > limits.json_depth:
            raise Refusal(400, f"failed to parse the request JSON: it is nested more than {limits.json_depth} deep")


def _check_shapes(text: bytes) -> None:
    """A shape whose number of bytes overflows ends the process of the model that it is sent to."""
    try:
        # Whatever bytes are in strings; and every pair of an object, where a key comes twice.
        json.loads(text.decode("utf-8", "replace"), object_pairs_hook=_check_pairs)
    except ValueError as error:
        raise Refusal(400, f"failed to parse the request JSON buffer: {error}") from None


def _check_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for name, value in pairs:
        if name == "shape" and isinstance(value, list):
            sizes = [size for size in value if isinstance(size, int)]
            if any(size < -1 for size in sizes) or math.prod(size or 1 for size in sizes) > _MOST_VALUES:
                raise Refusal(400, f"a tensor's shape is {str(value)[:80]}; at most {_MOST_VALUES:,} values are taken")
    return dict(pairs)
