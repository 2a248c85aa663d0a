"""The server under test: `triune serve` of r1-nano on loopback, in a run folder that can be filled up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from triune_load.core.metrics_text import held, parse_metrics

from ..ports import free_port
from .answers import ANSWERED, PROTOCOLS, QUESTIONS, Addresses, Texts, ask, right_texts
from .family import SUPERVISOR, adopt_orphans, family, kill_all, role_of, wait_gone
from .footprint import Footprint, Memory

DRAIN_S = 5
START_S = 60.0  # r1-nano takes 3 on two quiet cores
_RUN_FOLDER_MIB = 160  # a copy of the engine, the state and logs


class NotWell(Exception):
    """The server does not serve, or not rightly; the message says what was seen."""


class Server:
    """One at a time, started and stopped again and again in the same folders and on the same ports."""

    def __init__(self, repository: Path, folder: Path) -> None:
        """
        Args:
            repository: copied, so that it can be damaged.
            folder: of all that this makes; removed by `close`.
        """
        adopt_orphans()
        self._known = frozenset(process.pid for process in psutil.Process().children(recursive=True))
        self.folder, self._original = folder, repository
        self.repository, self.run_folder, self.temporary = (folder / name for name in ("repository", "run", "tmp"))
        for made in (self.run_folder, self.temporary):
            made.mkdir(parents=True)
        shutil.copytree(repository, self.repository)
        # A disk of its own can be full without harm to anyone else.
        self.own_disk = _mount(self.run_folder)
        self.ports = {name: free_port() for name in ("http", "grpc", "metrics", "openai")}
        address = {name: f"127.0.0.1:{port}" for name, port in self.ports.items()}
        self.where = Addresses(
            f"http://{address['http']}", address["grpc"], f"http://{address['openai']}", f"http://{address['metrics']}/metrics"
        )
        self.log = folder / "serve.log"
        self.texts: Texts = {}
        self._memory, self._usual, self._said = Memory(), frozenset[str](), 0
        self.process: subprocess.Popen[bytes] | None = None
        self.deaths = 0  # that faults may have caused since it was started

    def begin(self, environment: Mapping[str, str] | None = None) -> None:
        """Start it, and wait for nothing."""
        self._memory, self.deaths = Memory(usual=self._usual), 0
        self._said = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.command("serve"), env=self._environment(environment), stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True, cwd=self.folder,
            )  # fmt: skip

    def start(self, environment: Mapping[str, str] | None = None) -> float:
        """Start it, and wait until it is well; seconds that took.

        Raises:
            NotWell: it is not within `START_S`.
        """
        began = time.monotonic()
        self.begin(environment)
        if not self.texts:
            self._wait_ready(began + START_S)
            self.texts = right_texts(self.where)
            self._usual = self.look().files
            self._memory.usual = self._usual
        self.wait_well(began + START_S - time.monotonic())
        return time.monotonic() - began

    def command(self, verb: str) -> list[str]:
        """The command line of a verb of `triune` for this server."""
        words = [sys.executable, "-m", "triune_server", verb, f"--run-folder={self.run_folder}"]
        if verb not in ("serve", "up"):
            return words
        ports = [f"--{name}-port={port}" for name, port in self.ports.items()]
        return [*words, f"--repository={self.repository}", f"--drain-s={DRAIN_S}", *ports]

    def tell(self, verb: str, timeout_s: float) -> tuple[int | None, str]:
        """Run a verb; its exit code, None if it hung, and what it said."""
        with subprocess.Popen(
            self.command(verb), env=self._environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, cwd=self.folder,
        ) as process:  # fmt: skip
            try:
                said, _ = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                return None, ""
            return process.returncode, said.decode("utf-8", "replace")

    def _environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        return {**os.environ, "TMPDIR": str(self.temporary), "PYTHONUNBUFFERED": "1", **(more or {})}

    @property
    def supervised(self) -> bool:
        """Whether a supervisor runs."""
        return any(role_of(process) == SUPERVISOR for process in self.family())

    def family(self) -> list[psutil.Process]:
        """All its processes."""
        if self.process is not None:
            self.process.poll()
        return family(known=self._known)

    def members(self, role: str) -> list[psutil.Process]:
        """Its processes of a role."""
        return [process for process in self.family() if role_of(process) == role]

    def roles(self) -> list[str]:
        """The roles that it has processes of."""
        return sorted({role for process in self.family() if (role := role_of(process))})

    def look(self) -> Footprint:
        """What it holds now."""
        return self._memory.look(self.family(), self.temporary)

    def held(self) -> float | None:
        """Requests and slots that it holds by its own metrics; None if they do not answer."""
        with suppress(httpx.HTTPError):
            return held(parse_metrics(httpx.get(self.where.metrics, timeout=5, trust_env=False).text))
        return None

    def wait_idle(self, timeout_s: float = 15.0) -> float | None:
        """Wait until it holds no request; what it holds after so long."""
        end = time.monotonic() + timeout_s
        while (holds := self.held()) != 0 and time.monotonic() < end:
            time.sleep(0.1)
        return holds

    def wait_well(self, timeout_s: float) -> None:
        """Wait until one question is answered rightly over every protocol.

        Raises:
            NotWell: not within so long.
        """
        end = time.monotonic() + timeout_s
        self._wait_ready(end)
        for protocol in PROTOCOLS:
            while (seen := ask(self.where, protocol, QUESTIONS[0], self.texts, 10.0)).kind != ANSWERED:
                if time.monotonic() > end:
                    raise NotWell(f"over {protocol}, after {timeout_s:.0f} s: {seen.kind}: {seen.detail}")
                time.sleep(0.2)

    def _wait_ready(self, end: float) -> None:
        while True:
            if self.says_ready():
                return
            if not self.family():
                raise NotWell(f"it has ended: {self.last_words()}")
            if time.monotonic() > end:
                raise NotWell(f"it is not ready: {self.last_words()}")
            time.sleep(0.1)

    def says_ready(self) -> bool:
        """Whether it says of itself that it can generate now."""
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.where.openai}/health", timeout=2, trust_env=False).status_code == 200
        return False

    def stop(self, timeout_s: float = DRAIN_S + 20.0) -> list[psutil.Process]:
        """Stop it politely; who is left after so long."""
        for process in self.members(SUPERVISOR):
            with suppress(psutil.Error):
                process.terminate()
        return wait_gone(timeout_s, self._known)

    def destroy(self) -> None:
        """End whatever runs, and leave nothing for the next start: not what a server does, but what a new machine is."""
        kill_all(self._known)
        for name in self._memory.look((), self.temporary).segments:
            with suppress(OSError):
                (Path("/dev/shm") / name).unlink()
        for folder in (self.run_folder, self.temporary):
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        self.restore()

    def restore(self) -> None:
        """Undo what was done to its repository."""
        shutil.rmtree(self.repository)
        shutil.copytree(self._original, self.repository)

    def last_words(self, lines: int = 4) -> str:
        """The end of what its supervisor has said since it was started."""
        said = self.log.read_bytes()[self._said :].decode("utf-8", "replace").splitlines() if self.log.exists() else []
        return " | ".join(line[:200] for line in said[-lines:] if "curl" not in line) or "it has said nothing"

    def close(self) -> None:
        """End everything and remove what was made."""
        self.destroy()
        if self.own_disk:
            subprocess.run(["umount", "-l", str(self.run_folder)], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def _mount(folder: Path) -> bool:
    command: Sequence[str] = ("mount", "-t", "tmpfs", "-o", f"size={_RUN_FOLDER_MIB}m", "tmpfs", str(folder))
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
