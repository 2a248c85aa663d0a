"""What a body may look like before the server's own parser, which recurses, sees it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .limits import Limits
from .refusal import Refusal

HEADER_LENGTH = b"inference-header-content-length"  # of KServe's binary tensors: how much of a body is JSON
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)  # linear in any text; one without an end goes to the end
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_OPENING = b"[{"


def check_body(body: bytes, headers: Mapping[bytes, bytes], limits: Limits) -> None:
    """Check the JSON of a body, and that the rest of it is where it is said to be.

    Raises:
        Refusal: it lies too deep, holds too much, or ends elsewhere.
    """
    if (said := headers.get(HEADER_LENGTH)) is not None:
        if not said.isdigit() or len(said) > 12 or int(said) > len(body):
            wrong = said.decode("latin-1")
            raise Refusal(400, f"Inference-Header-Content-Length is {wrong!r}; the body has {len(body):,} bytes")
        body = body[: int(said)]
    check_json(body, limits)


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
            raise Refusal(400, f"the request's JSON is nested more than {limits.json_depth} deep")
