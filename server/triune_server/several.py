"""One model more or less with a server that runs: nothing of the others is touched."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from triune_runtime.manifest import EngineManifest
from triune_runtime.targets import check_runnable

from .asking import ask
from .errors import ServerError
from .exposure import own_key
from .settings import Values
from .stack import find_stack
from .starting import Builder
from .state import RunningServer, find_running, log_file
from .view import ENGINE_FOLDER, View, name_for

_READY_S, _DRAINED_S, _GONE_S = 120.0, 60.0, 30.0
_OLD_NEWS_S = 10.0
_LAST_WORDS_S = 1.0  # for answers that are whole and not yet sent


def add_model(values: Values, builder: Builder | None, *, build: bool) -> str:
    """Serve one more; what to tell of it.

    Raises:
        ServerError: no server runs, the name is taken, or the model cannot be served; the others are served as before.
    """
    folder: Path = values["run_folder"]
    running, view, name = _running(folder), View(folder), values["name"] or ""
    if name in view.served():
        raise ServerError(f"{name} is being served already", f"choose another NAME, or `make remove NAME={name}` first")
    repository: Path | None = values["repository"]
    if repository is None:
        if builder is None:
            raise ServerError("no model repository is named", "name it: --repository FOLDER")
        repository = builder.build(values) if build else builder.repository(values)
    if not repository.is_dir():
        raise ServerError(
            f"no model repository at {repository}", "build it first: `make add MODEL=...`, with `triune add` --build"
        )
    manifest = EngineManifest.load(repository / ENGINE_FOLDER)
    check_runnable(manifest, repository / ENGINE_FOLDER)
    name = name or name_for(manifest.model)
    # What the server still says of one of that name that was there before; it takes a moment to see the new one.
    old, told_until = _failures(running, name), time.monotonic() + _OLD_NEWS_S

    def ready() -> bool:
        failures = _failures(running, name)
        if failures and (failures != old or time.monotonic() > told_until):
            raise ServerError(f"{name} cannot be served: {failures[0]}", f"the whole log is {log_file(folder)}")
        return not failures and _answers(running, name)

    served = view.add(name, repository)
    try:
        with Console(stderr=True).status(f"loading {name} ..."):
            _wait(ready, _READY_S, f"{name} was not ready after {_READY_S:.0f} s", folder)
    except BaseException:  # ctrl-C, too
        view.drop(name)
        raise
    view.announce(name, served)
    return f"{name} is served: {running.options.http_url}/v2/models/{name}/generate, and as model {name!r} by OpenAI's API"


def remove_model(folder: Path, name: str) -> str:
    """Serve one less, once what was asked of it is answered; what to tell of it.

    Raises:
        ServerError: no server runs, or it is not served or is the one that it was started with.
    """
    _running(folder)
    view, log = View(folder), log_file(folder)
    begin = log.stat().st_size
    ensembles = view.withdraw(name)
    with Console(stderr=True).status(f"waiting for {name} to answer what it was asked ..."):
        _wait(lambda: _let_go(log, begin, ensembles), _DRAINED_S, "", folder)
        time.sleep(_LAST_WORDS_S)
        steps = [one.name for one in view.folders(name)]
        view.drop(name)
        # Until all are unloaded: one of the same name that came meanwhile would be loaded beside, and find its places taken.
        _wait(lambda: _let_go(log, begin, steps), _GONE_S, "", folder)
    return f"{name} is no longer served"


def _let_go(log: Path, begin: int, models: list[str]) -> bool:
    """Whether the server's log says, after its first `begin` bytes, that it let go of models: it does when they are idle."""
    with log.open("rb") as file:
        file.seek(begin)
        said = file.read().decode("utf-8", "replace")
    return all(f"successfully unloaded '{model}' version" in said for model in models)


def _running(folder: Path) -> RunningServer:
    running = find_running(folder)
    if running is None and find_stack(folder) is not None:
        raise ServerError(
            "what runs is in containers, which serve one model", "serve without containers: `make down`, then `make up`"
        )
    if running is None:
        raise ServerError("no server is running", "start one with `make up`")
    return running


def _wait(reached: Callable[[], bool], limit_s: float, problem: str, folder: Path) -> None:
    """Wait until something is reached; afterwards go on, or, where there is a name for it, raise."""
    end = time.monotonic() + limit_s
    while not reached():
        if time.monotonic() > end:
            if problem:
                raise ServerError(problem, f"the whole log is {log_file(folder)}")
            return
        time.sleep(0.2)


def _failures(running: RunningServer, name: str) -> list[str]:
    """Why steps of a model could not be loaded."""
    states = _states(running, [f"{name}__{step}" for step in ("generate", "tokenize", "detokenize")]).values()
    reasons = [str(state.get("reason", "")).partition("\n")[0] for state in states if state["state"] == "UNAVAILABLE"]
    return [reason for reason in reasons if reason not in ("", "unloaded")]


def _answers(running: RunningServer, name: str) -> bool:
    """Whether a model can be asked."""
    try:
        return ask(f"{running.options.http_url}/v2/models/{name}/ready", timeout_s=2.0).status_code == 200
    except httpx.HTTPError:
        return False


def _states(running: RunningServer, models: list[str]) -> dict[str, dict[str, Any]]:
    """What the server says of those of some models that it has or is getting rid of."""
    try:
        url = f"{running.options.http_url}/v2/repository/index"
        known = ask(url, method="POST", content=b"{}", headers=own_key(running.options), timeout_s=2.0).json()
    except (httpx.HTTPError, ValueError):
        return {}
    return {one["name"]: one for one in known if one["name"] in models and one.get("state")}
