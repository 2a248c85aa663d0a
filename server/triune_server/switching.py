"""A server runs and another is asked for: how they differ, and how that is said. Starts and stops nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import ServerError
from .settings import Values
from .state import RunningServer

_NAMING = ("model", "target", "repository", "build_dir")  # they say which repository, and that is what is compared
_OF_A_COMMAND = ("run_folder",)  # where the running one was found by


def check_same(running: RunningServer, values: Values, repository: Path) -> None:
    """Make sure that the running server is the one that is asked for; what is not asked for may be anything.

    Raises:
        ServerError: names both, and how to switch.
    """
    asked = values.asked(values.settings.keys() - {*_NAMING, *_OF_A_COMMAND})
    other = _differing(running, asked)
    if not serves(running, repository):
        other = {name: value for name, value in other.items() if name in _server_names(running)}
        other = {**_naming(values), **other}
    if not other:
        return
    told = _said(values, other)
    known = _known(running)
    has = _said(values, {name: known[name] for name in other if name not in _NAMING and known.get(name) not in (None, [])})
    # The whole command again: what is left out of it would be asked for as by default.
    whole = _said(values, {**values.said_here(), **other})
    raise ServerError(
        f"{running.model} is being served{f' with {has}' if has else ''} (pid {running.pid}); asked for: {told}",
        f"to switch to it: `make up SWITCH=1 {whole}`, with `triune up` --switch; or stop the other first: `make down`",
    )


def serves(running: RunningServer, repository: Path) -> bool:
    """Whether the running server's repository is that one."""
    return running.options.repository.absolute() == repository.absolute()


def built_otherwise(running: RunningServer, values: Values, names: Iterable[str]) -> str:
    """The build's settings of the running server's engine that are others now; empty if none is."""
    now = {name: values[name] for name in names if name not in (*_NAMING, *_OF_A_COMMAND)}
    return ", ".join(
        values.settings[name].said("its default" if running.settings[name] in (None, []) else running.settings[name])
        for name in _differing(running, now)
    )


def _differing(running: RunningServer, wanted: Mapping[str, Any]) -> dict[str, Any]:
    known = _known(running)
    return {name: value for name, value in wanted.items() if name in known and known[name] != _plain(value)}


def _known(running: RunningServer) -> dict[str, Any]:
    options = {name: _plain(getattr(running.options, name)) for name in _server_names(running)}
    return {**running.settings, **options}


def _server_names(running: RunningServer) -> list[str]:
    return [name for name in vars(running.options) if name not in _NAMING]


def _naming(values: Values) -> dict[str, Any]:
    """What says which repository is asked for: that of a model, or itself."""
    if values["repository"] is not None:
        return {"repository": values["repository"]}
    return {"model": values["model"], **values.asked(("target", "build_dir"))}


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value


def plain(values: Values, names: Iterable[str]) -> dict[str, Any]:
    """The values of some settings, as the state keeps them."""
    return {name: _plain(values[name]) for name in names}


def _said(values: Values, some: Mapping[str, Any]) -> str:
    return " ".join(values.settings[name].said(value) for name, value in some.items())
