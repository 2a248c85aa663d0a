"""build/run/triune.json: which server runs here. A stale file is told from a live one by process id and start time."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import psutil

from .options import ServerOptions

RUN_FOLDER = Path("build/run")
_NAME = "triune.json"
_LOG_BYTES = 8 << 20  # of a log that another start goes on with; a start writes some 20 kB


@dataclass(frozen=True, kw_only=True)
class RunningServer:
    """A supervisor that was started, and what it serves."""

    pid: int
    created: float  # seconds since the epoch, of the process: ids are used again
    options: ServerOptions

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
        raw["options"]["repository"] = str(self.options.repository)
        beside = folder / f"{_NAME}.new"
        beside.write_text(json.dumps(raw, indent=2) + "\n", "utf-8")
        beside.replace(folder / _NAME)


def find_running(folder: Path) -> RunningServer | None:
    """The live server of `folder`, if any."""
    try:
        raw = json.loads((folder / _NAME).read_text("utf-8"))
        options = ServerOptions(**(raw["options"] | {"repository": Path(raw["options"]["repository"])}))
        found = RunningServer(pid=raw["pid"], created=raw["created"], options=options)
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
