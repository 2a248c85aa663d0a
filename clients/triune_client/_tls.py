"""By which certificates a server is trusted, and under which name, where the public ones and its URL do not say so."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

CaFile = str | os.PathLike[str] | None


def check_tls(url: str, ca_file: CaFile, server_name: str | None, scheme: str) -> None:
    """Make sure that what is said of TLS goes with a URL that has it.

    Raises:
        ValueError: it does not.
    """
    if (ca_file is not None or server_name is not None) and not url.startswith(f"{scheme}://"):
        said = "ca_file" if ca_file is not None else "server_name"
        raise ValueError(f"url is {url!r}; with {said} expected one that begins with {scheme}://")


def trusting(ca_file: CaFile) -> ssl.SSLContext | bool:
    """What httpx verifies servers by; True: by the public certificates.

    Raises:
        ValueError: the file cannot be read, or holds no certificate.
    """
    if ca_file is None:
        return True
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # that of ssl, too
        raise ValueError(f"ca_file is {os.fspath(ca_file)!r}, which cannot be used: {error.strerror or error}") from None
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a server's own certificate will do
    return context


def roots(ca_file: CaFile) -> bytes | None:
    """What gRPC verifies servers by; as `trusting`."""
    return None if trusting(ca_file) is True or ca_file is None else Path(ca_file).read_bytes()


def untrusted(url: str, reason: str) -> str | None:
    """What to say where a server's certificate is why there is no connection; None: it is something else."""
    if "CERTIFICATE_VERIFY_FAILED" not in reason and "Hostname Verification" not in reason:
        return None
    return f"the certificate of {url} is not trusted: {reason}; ca_file names its CA's or itself, server_name the name in it"
