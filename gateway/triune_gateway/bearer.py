"""Who sent a request: the key in its headers, compared in the same time whatever is sent."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from .keys import UNNAMED, split_name

CLIENT = "x-triune-client"  # the header that tells the server behind whose request it is; it heeds it where clients share


class Keys:
    """API keys, kept as digests, so that a comparison takes the same time whatever is sent."""

    def __init__(self, keys: Sequence[str]) -> None:
        """
        Args:
            keys: each with or without a name, see `keys.split_name`.
        """
        self._tenants = {_digest(key.encode()): tenant for key, tenant in map(split_name, keys)}

    def admit(self, authorization: bytes) -> bool:
        """Whether an Authorization header carries one of the keys; any will do where there are none."""
        return self.tenant(authorization) is not None

    def tenant(self, authorization: bytes) -> str | None:
        """Whose key an Authorization header carries, "" where there are no keys; None where it carries none of them."""
        scheme, _, key = authorization.partition(b" ")
        sent = _digest(key.strip())
        # All are compared, so that the time does not tell which one was right.
        found = [tenant for digest, tenant in self._tenants.items() if hmac.compare_digest(sent, digest)]
        if not self._tenants:
            return ""
        return found[0] if found and scheme.lower() == b"bearer" else None

    def client(self, headers: Mapping[bytes, bytes], tenant: str | None, address: str | None) -> str:
        """Whose share of the server a request takes: its tenant's, or its key's where that has no name; without keys, all that
        come from its address. ASCII."""
        if not self._tenants:
            return quote(address or "")
        if tenant == UNNAMED:
            key = sent_key(headers).partition(b" ")[2].strip()
            return f"key-{_digest(key).hex()[:16]}"
        return quote(tenant or "")


def sent_key(headers: Mapping[bytes, bytes]) -> bytes:
    """The key of a request as an Authorization header: what it has, or the one that Anthropic's clients send."""
    if (key := headers.get(b"x-api-key")) is not None and b"authorization" not in headers:
        return b"Bearer " + key
    return headers.get(b"authorization", b"")


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
