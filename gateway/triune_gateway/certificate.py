"""A certificate and its key, in PEM files: what they say, and what a server speaks TLS with. Needs Python's own library alone.

Whoever starts a server looks at its files by the same code as the server does: what is wrong with them is said before.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_PEM = "-----BEGIN CERTIFICATE-----"
_ALTERNATIVE_NAMES = b"\x55\x1d\x11"  # 2.5.29.17, as DER has it
_UTC_TIME, _VERSION, _EXTENSIONS, _DNS_NAME, _IP_ADDRESS = 0x17, 0xA0, 0xA3, 0x82, 0x87  # tags


class CertificateError(ValueError):
    """Files that no server can speak TLS with."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True)
class Certificate:
    """What a certificate says.

    Attributes:
        names: hosts that it is for, addresses as text.
        not_before, not_after: between which it holds, in seconds since the epoch.
    """

    names: tuple[str, ...]
    not_before: float
    not_after: float


@dataclass(frozen=True)
class Loaded:
    """A pair of files that fits.

    Attributes:
        pair: the key and the chain, as they lie in the files.
    """

    certificate: Certificate
    context: ssl.SSLContext
    pair: tuple[bytes, bytes]


def both(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    """The files that are named; None where there is to be no TLS.

    Raises:
        CertificateError: there is only one.
    """
    if certificate is not None and key is not None:
        return certificate, key
    if certificate is None and key is None:
        return None
    there, missing = ("TLS_CERT", "TLS_KEY") if key is None else ("TLS_KEY", "TLS_CERT")
    said = f"{there} is {certificate or key}, and no {missing} is named"
    raise CertificateError(said, "name both: TLS_CERT=FILE TLS_KEY=FILE; or neither")


def load(certificate: Path, key: Path) -> Loaded:
    """A server's certificate, which those that signed it may follow in its file, and its key.

    Raises:
        CertificateError: one of the files cannot be read or is no such thing, or they do not belong together.
    """
    chain = _text(certificate, "TLS certificate", "TLS_CERT")
    secret = _text(key, "key of the TLS certificate", "TLS_KEY")
    if _PEM not in chain:
        raise CertificateError(f"{certificate} holds no certificate in PEM", f"one begins with {_PEM}: TLS_CERT=FILE")
    if "PRIVATE KEY-----" not in secret:
        raise CertificateError(
            f"{key} holds no private key in PEM", "one begins with -----BEGIN PRIVATE KEY-----: TLS_KEY=FILE"
        )
    if "ENCRYPTED" in secret:
        raise CertificateError(
            f"the key in {key} is protected by a password, which nobody is there to give when a server starts again",
            f"write it without one: openssl pkey -in {key} -out FILE && chmod 600 FILE",
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")  # never asked for at a terminal
        found = read(chain)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            said = f"the key in {key} does not belong to the certificate in {certificate}"
            raise CertificateError(said, f"name its own; in {certificate} the server's certificate comes first") from None
        raise CertificateError(
            f"the certificate in {certificate} cannot be used with the key in {key}: {error.reason or error}",
            "name a certificate and its key, in PEM: TLS_CERT=FILE TLS_KEY=FILE",
        ) from None
    except (OSError, ValueError, IndexError) as error:  # changed since it was read, or damaged
        raise CertificateError(f"the certificate in {certificate} cannot be used: {error}", "write it anew") from None
    return Loaded(found, context, (secret.encode(), chain.encode()))


def read(pem: str) -> Certificate:
    """What the first certificate of a text says.

    Raises:
        ValueError, IndexError: there is none, or it is damaged.
    """
    begin = pem.index(_PEM)
    ((_, whole),) = _parts(ssl.PEM_cert_to_DER_cert(pem[begin : pem.index("-----END", begin)] + "-----END CERTIFICATE-----\n"))
    fields = _parts(_parts(whole)[0][1])
    validity = _parts(fields[4 if fields[0][0] == _VERSION else 3][1])
    not_before, not_after = (_time(tag, value.decode("ascii")) for tag, value in validity)
    extensions = [one for tag, value in fields if tag == _EXTENSIONS for one in _parts(_parts(value)[0][1])]
    return Certificate(tuple(_names(extensions)), not_before, not_after)


def _text(file: Path, what: str, variable: str) -> str:
    try:
        return file.read_text("utf-8")
    except OSError as error:
        said = f"the {what} in {file} cannot be read: {error.strerror}"
        raise CertificateError(said, f"name a file that this user can read: {variable}=FILE") from None
    except UnicodeDecodeError:
        raise CertificateError(
            f"{file} is no PEM: the {what} is expected as text", "of DER: openssl x509 (or pkey) -inform der -in FILE -out NEW"
        ) from None


def _parts(der: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of the values that stand in DER one after the other."""
    found, at = [], 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size], "big"), at + size
        found.append((tag, der[at : at + length]))
        at += length
    return found


def _time(tag: int, text: str) -> float:
    if tag == _UTC_TIME:  # two digits of the year
        text = ("20" if text < "50" else "19") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _names(extensions: list[tuple[int, bytes]]) -> Iterator[str]:
    for _, extension in extensions:
        (_, kind), *_, (_, value) = _parts(extension)
        for tag, name in _parts(_parts(value)[0][1]) if kind == _ALTERNATIVE_NAMES else ():
            if tag == _DNS_NAME:
                yield name.decode("ascii", "replace")
            elif tag == _IP_ADDRESS:
                yield str(ipaddress.ip_address(name))
