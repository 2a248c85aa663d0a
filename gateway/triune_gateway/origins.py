"""Whether a web page of somebody else's sent a request: a browser on this machine reaches what listens on loopback, too."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

_OWN_SITES = (b"none", b"same-origin")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def foreign(headers: Mapping[bytes, bytes], listens_on: str, allowed: Collection[str] = ()) -> str | None:
    """Why a request is not taken, or None.

    Args:
        headers: by names in lower case.
        listens_on: the address. On loopback the Host must be one, too: a name that resolves to it may be anybody's.
        allowed: origins of pages that may call; "*": all.
    """
    host = headers.get(b"host", b"").decode("latin-1")
    origin = headers.get(b"origin", b"").decode("latin-1")
    named = "*" in allowed or host.lower() in map(_place, allowed)  # a proxy on this machine may pass on its own name
    if is_loopback(listens_on) and b"host" in headers and not named and not is_loopback(_name(host)):  # all browsers send it
        return (
            f"the header Host is {host!r}; this server listens on {listens_on} and is called localhost or 127.0.0.1, or as the"
            " setting cors names it"
        )
    if origin and ("*" in allowed or origin in allowed):
        return None
    if origin and _place(origin) != host.lower():
        return f"the header Origin is {origin!r}; web pages of other sites are served if the setting cors names them"
    if headers.get(b"sec-fetch-site", b"none") not in _OWN_SITES:
        return "the header Sec-Fetch-Site tells of a web page of another site; these are served if the setting cors names them"
    return None


def _place(origin: str) -> str:
    """Host and port of an origin; empty for one that hides them."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _name(host: str) -> str:
    """A Host without its port."""
    return host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0].lower()
