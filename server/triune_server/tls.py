"""TLS before a start: what is wrong with its files, and how those at this machine call and trust a server that has them."""

from __future__ import annotations

import shlex
import stat
import time
from contextlib import suppress

from triune_gateway.certificate import CertificateError, both, load, read

from .errors import ServerError
from .exposure import is_loopback
from .options import ServerOptions, local

_DAY_S = 86_400


def check_tls(options: ServerOptions) -> list[str]:
    """Make sure that the certificate and its key can be used; what is doubtful of them, in sentences.

    Raises:
        ServerError: they cannot.
    """
    try:
        if (files := both(options.tls_cert, options.tls_key)) is None:
            return []
        found = load(*files).certificate
    except CertificateError as error:
        raise ServerError(str(error), error.remedy) from None
    certificate, key = files
    now, mode = time.time(), key.stat().st_mode
    notes = []
    if now > found.not_after:
        notes.append(f"ended {(now - found.not_after) / _DAY_S:.1f} days ago; it is served, and clients refuse it")
    if now < found.not_before:
        notes.append(f"begins in {(found.not_before - now) / _DAY_S:.1f} days; it is served, and clients refuse it until then")
    if not found.names:
        notes.append("names no host (subjectAltName); it is served, and clients refuse it")
    notes = [f"note: the certificate in {certificate} {note}" for note in notes]
    if mode & 0o077:
        said = f"note: the key in {key} can be used by others (its mode is {stat.filemode(mode)})"
        notes.append(f"{said}: chmod 600 {shlex.quote(str(key))}")
    return notes


def is_secure(url: str) -> bool:
    """Whether what listens there speaks TLS."""
    return url.startswith(("https://", "grpcs://"))


def trust(options: ServerOptions, url: str) -> list[str]:
    """The arguments by which our clients trust that server at one of its URLs; none where it speaks no TLS there."""
    if not is_secure(url):
        return []
    return [f"--ca-file={options.tls_cert}", *(f"--server-name={name.replace('*', 'any', 1)}" for name in _names(options)[:1])]


def called(options: ServerOptions, name: str) -> tuple[str, bool]:
    """What the host of a port is called at this machine, and whether its certificate says so, too.

    Args:
        name: of the port, see `ServerOptions.address`.
    """
    host, names = local(options.address(name)), _names(options)
    candidates = [host]
    if is_loopback(host):
        candidates.append("localhost")
    if not is_loopback(options.address(name)):  # else it answers to no other name
        candidates += [one for one in names if "*" not in one]
    return next(((one, True) for one in candidates if one in names), (host, False))


def _names(options: ServerOptions) -> tuple[str, ...]:
    if options.tls_cert is not None:
        with suppress(OSError, ValueError, IndexError):
            return read(options.tls_cert.read_text("utf-8")).names
    return ()
