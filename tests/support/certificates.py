"""Certificates for tests, made by the program openssl: those of an authority of a test's own."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


def openssl(*arguments: str | Path) -> str:
    """What openssl prints."""
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path

    def become(self, other: Pair) -> None:
        """Be renewed: the other's content in these files, as a renewal writes them."""
        for mine, new in ((self.certificate, other.certificate), (self.key, other.key)):
            beside = mine.with_suffix(".new")
            beside.write_bytes(new.read_bytes())
            beside.chmod(0o600)
            beside.replace(mine)


class Authority:
    """One that signs certificates; its own is `file`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.file, self._key = folder / "ca.pem", folder / "ca.key"
        openssl("req", "-x509", *_CURVE, "-nodes", "-keyout", self._key, "-out", self.file, "-subj", "/CN=a test", "-days", "2")

    def issue(self, name: str, *hosts: str, days: int = 30) -> Pair:
        """A certificate in files that begin with `name`.

        Args:
            hosts: as openssl has them: DNS:localhost, IP:127.0.0.1; none: it names none.
            days: from now to its end; -1: it has ended.
        """
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        asked, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={','.join(hosts)}\n" if hosts else "basicConstraints=CA:FALSE\n")
        openssl("req", *_CURVE, "-nodes", "-keyout", pair.key, "-out", asked, "-subj", f"/CN={name}")
        openssl(
            "x509", "-req", "-in", asked, "-CA", self.file, "-CAkey", self._key, "-CAcreateserial", "-days", str(days),
            "-extfile", extensions, "-out", pair.certificate,
        )  # fmt: skip
        return pair


LOCAL = ("DNS:localhost", "IP:127.0.0.1")
PUBLIC = ("DNS:llm.example.com", "DNS:*.example.org")
