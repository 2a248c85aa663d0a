"""build/run/triune.json: which server runs here. A stale file is told from a live one by process id and start time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from .options import ServerOptions

RUN_FOLDER = Path("build/run")
_NAME = "triune.json"
_FILES = ("api_key_file", "access_log", "responses_file", "tls_cert", "tls_key")  # options that are paths, or None
_LOG_BYTES = 8 << 20  # of a log that another start goes on with; a start writes some 20 kB


@dataclass(frozen=True, kw_only=True)
class RunningServer:
    """A supervisor that was started, and what it serves.

    Attributes:
        settings: what else was chosen when it was started, as JSON: the model, what its engine was built with.
        engine: the hash of the engine's inputs.
        restarts: how often something of it has died and was started again.
        reason: of the latest of these.
        waiting: whether it waits before it starts again.
    """

    pid: int
    created: float  # seconds since the epoch, of the process: ids are used again
    options: ServerOptions
    settings: Mapping[str, Any] = field(default_factory=dict)
    engine: str = ""
    restarts: int = 0
    reason: str = ""
    waiting: bool = False

    @property
    def model(self) -> str:
        """What it serves, as it was asked for."""
        return str(self.settings.get("model") or self.options.repository)

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        try:
            process = psutil.Process(self.pid)
            return bool(abs(process.create_time() - self.created) < 1 and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    def save(self, folder: Path) -> None:
        """Write the state file of `folder`, whole or not at all."""
        raw = dataclasses.asdict(self)
        beside = folder / f"{_NAME}.new"
        try:
            beside.write_text(json.dumps(raw, indent=2, default=str) + "\n", "utf-8")
            beside.replace(folder / _NAME)
        except OSError:
            beside.unlink(missing_ok=True)
            raise


def find_running(folder: Path) -> RunningServer | None:
    """The live server of `folder`, if any."""
    try:
        raw = json.loads((folder / _NAME).read_text("utf-8"))
        saved = raw["options"]
        options = ServerOptions(**saved | {
            "repository": Path(saved["repository"]),
            **{name: Path(saved[name]) if saved.get(name) else None for name in _FILES},
            "cors": tuple(saved.get("cors", ())),
            "also": tuple(saved.get("also", ())),
        })  # fmt: skip
        found = RunningServer(
            pid=raw["pid"], created=raw["created"], options=options,
            settings=dict(raw.get("settings", {})), engine=str(raw.get("engine", "")),
            restarts=int(raw.get("restarts", 0)), reason=str(raw.get("reason", "")), waiting=bool(raw.get("waiting")),
        )  # fmt: skip
        return found if found.alive else None
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None  # no file, or one that nobody of ours wrote


def forget(folder: Path) -> None:
    """Remove the state file of `folder`, if there is one."""
    (folder / _NAME).unlink(missing_ok=True)


def log_file(folder: Path) -> Path:
    """Where the supervisor and the server write."""
    return folder / "server.log"


def begin_log(folder: Path) -> Path:
    """`log_file` for a server that is about to start. One that has grown long is set aside, in place of the one before it."""
    log = log_file(folder)
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    return log
