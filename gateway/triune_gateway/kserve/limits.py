"""How much the front takes: plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one front. A connection serves one request after the other.

    Attributes:
        connections: open at once.
        head_bytes, headers: of a request's first part: its line and its headers.
        body_bytes: of a request's body, also after it was decompressed.
        chunks: pieces that a body of unknown length may come in.
        json_depth: how deep a body's lists and objects may lie in each other.
        json_elements: values of a body's lists and objects.
        held_bytes: bodies of all requests that are being read or answered.
        idle_s: without a request on a connection that has had one; one that never had one gets `head_s`.
        head_s: for a request's first part.
        body_s: for a body.
        unread_s: that a client may leave its answer unread.
    """

    connections: int = 1024
    head_bytes: int = 16_384
    headers: int = 100
    body_bytes: int = 8_000_000
    chunks: int = 10_000
    json_depth: int = 64
    json_elements: int = 1_000_000
    held_bytes: int = 256_000_000
    idle_s: float = 75.0
    head_s: float = 10.0
    body_s: float = 60.0
    unread_s: float = 60.0
