"""All checks, by group, in the order of telling. A new one is a function in its group's file, and its place there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from ..errors import ServerError
from . import disk, engine, gpus, host, limits, peer, server, software
from .context import Context
from .finding import Finding, unknown

Check = Callable[[Context], Iterable[Finding]]

GROUPS: Mapping[str, Sequence[Check]] = {
    "software": software.CHECKS,
    "engine": engine.CHECKS,
    "gpus": gpus.CHECKS,
    "processor": host.CHECKS,
    "limits": limits.CHECKS,
    "disk": disk.CHECKS,
    "network": peer.CHECKS,
    "server": server.CHECKS,
}


def chosen(names: Collection[str]) -> tuple[str, ...]:
    """The groups of these names, in their order; of none: all.

    Raises:
        ServerError: one is not known.
    """
    if wrong := [name for name in names if name not in GROUPS]:
        raise ServerError(f"there are no checks called {wrong[0]!r}", f"known: {', '.join(GROUPS)}")
    return tuple(name for name in GROUPS if not names or name in names)


def examine(context: Context, groups: Iterable[str]) -> dict[str, list[Finding]]:
    """What each group finds; groups that find nothing are left out.

    Raises:
        ServerError: the peer that was named cannot be measured.
    """
    found: dict[str, list[Finding]] = {}
    for name in groups:
        for check in GROUPS[name]:
            found.setdefault(name, []).extend(_looked(check, context))
    return {name: findings for name, findings in found.items() if findings}


def _looked(check: Check, context: Context) -> list[Finding]:
    """What one finds; a file of the system that cannot be read or understood ends no other check."""
    try:
        return list(check(context))
    except (OSError, ValueError, LookupError) as error:
        return [unknown(check.__name__.replace("_", " "), f"could not be looked at: {error!r}")]
