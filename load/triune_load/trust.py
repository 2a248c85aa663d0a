"""By which certificates a server is trusted over TLS, and under which name."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import LoadError


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What is trusted of servers that speak TLS.

    Attributes:
        ca_file: certificates in PEM, of a CA or the server's own; None: the public ones.
        server_name: the name in the server's certificate; None: the host of its URL.
    """

    ca_file: Path | None = None
    server_name: str | None = None

    @property
    def context(self) -> ssl.SSLContext:
        """
        Raises:
            LoadError: the file cannot be read, or holds no certificate.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:  # that of ssl, too
            said = f"--ca-file is {self.ca_file}, which cannot be used: {error.strerror or error}"
            raise LoadError(said, "name a file of certificates in PEM") from None
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a server's own certificate will do
        return context

    @property
    def roots(self) -> bytes | None:
        """For gRPC; raises as `context`."""
        return self.ca_file.read_bytes() if self.ca_file is not None and self.context else None

    @property
    def extensions(self) -> dict[str, Any]:
        """Of a request of httpx."""
        return {"sni_hostname": self.server_name} if self.server_name else {}


PUBLIC = Trust()
