"""A folder where the command `triune` runs in this process, with a repository and a stand-in for docker on PATH."""

from __future__ import annotations

import io
import os
import re
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.docker import FakeDocker
from fakes.repository import fake_repository
from support.real_server import free_port
from triune_server.command import app

PORTS = ("HTTP_PORT", "GRPC_PORT", "METRICS_PORT", "OPENAI_PORT")


@dataclass(frozen=True)
class Said:
    """What a command printed."""

    stdout: str
    stderr: str


class Checkout:
    """See above. Each command is run in this process: another takes a second to begin."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.docker = FakeDocker(folder / "docker of it")
        self.repository = fake_repository(folder / "repository")
        self.ports = {name: free_port() for name in PORTS}
        self.path = f"{self.docker.bin}{os.pathsep}{os.environ['PATH']}"

    def __call__(self, *arguments: str, exit_code: int = 0, **said: str) -> Said:
        """What a command prints, in an environment of nothing but `said`."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRIUNE_", "COMPOSE_"))}
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(self.folder)
            for name in os.environ.keys() - kept.keys():
                patch.delenv(name)
            for name, value in {"PATH": self.path, **said}.items():
                patch.setenv(name, value)
            try:
                app(arguments, prog_name="triune")
                code = 0
            except SystemExit as end:
                code = int(end.code or 0)
        assert code == exit_code, (code, out.getvalue(), err.getvalue())
        return Said(out.getvalue(), err.getvalue())

    def up(self, *arguments: str, **said: str) -> dict[str, str]:
        """What compose was given by one that works."""
        self(*self.asked(*arguments), **said)
        return self.docker.calls("up")[-1][1]

    def refuses(self, *arguments: str, **said: str) -> str:
        """What one says that is refused before compose is asked for anything: an error and a hint."""
        before = len(self.docker.calls("up"))
        text = self(*self.asked(*arguments), exit_code=1, **said).stderr
        assert len(self.docker.calls("up")) == before
        assert re.fullmatch(r"error: [^\n]+\n\nhint: [^\n]+\n", text), text
        return text

    def asked(self, *arguments: str) -> list[str]:
        ports = [f"--{name.lower().replace('_', '-')}={port}" for name, port in self.ports.items()]
        return ["up", "--where=docker", f"--repository={self.repository}", *ports, *arguments]


def for_containers(file: Path) -> Path:
    """A private file as the containers' user has it, who is root's to choose, or this one."""
    file.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(file, 1000, 1000)
    elif os.geteuid() != 1000:
        pytest.skip("only root and user 1000 have such files")
    return file
