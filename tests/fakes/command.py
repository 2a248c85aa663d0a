"""The command `triune` of a server, over a stand-in for the binary, as a user types it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fakes.repository import fake_repository
from fakes.server import fake_server
from support.real_server import free_port

STUBS = f"python_backend_stubs/{sysconfig.get_python_version()}"
ONE_SENTENCE = re.compile(r"error: .+\n\nhint: .+\n", re.DOTALL)


class Triune:
    """The command with a server, a repository and a run folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.home, self.run_folder = folder / "home", folder / "run"
        self.shared_memory = folder / "shm"
        self.temporary: Path | None = None  # TMPDIR of all that is started from now on
        base = self.home / "pytriton" / "tritonserver"
        for part in ("bin", "backends/python", STUBS):
            (base / part).mkdir(parents=True)
        self.shared_memory.mkdir()
        (base / "backends/python/libtriton_python.so").touch()
        shutil.copy2("/bin/sleep", base / STUBS / "triton_python_backend_stub")
        self.repository = fake_repository(folder / "repository")
        self.ports = {"HTTP_PORT": free_port(), "GRPC_PORT": free_port(), "METRICS_PORT": free_port()}
        self.install()

    def install(self, *, broken: bool = False, dies: bool = False) -> None:
        """Choose how the stand-in behaves."""
        fake_server(self.home / "pytriton" / "tritonserver" / "bin", self.shared_memory, broken=broken, dies=dies)

    def __call__(self, command: str, *arguments: object, exit_code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "triune_server", command, f"--run-folder={self.run_folder}", *map(str, arguments)],
            env=self.environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == exit_code, done
        assert "Traceback" not in done.stdout + done.stderr
        return done

    @property
    def environment(self) -> Mapping[str, str]:
        """That finds the stand-in."""
        return os.environ | {"TRIUNE_TRITON_HOME": str(self.home)} | ({"TMPDIR": str(self.temporary)} if self.temporary else {})

    def serve(self, **where: Any) -> subprocess.Popen[bytes]:
        """A server in the foreground; `where` its streams go."""
        command = [sys.executable, "-m", "triune_server", "serve", f"--run-folder={self.run_folder}", *self.served]
        return subprocess.Popen(command, env=self.environment, **where)

    @property
    def served(self) -> list[str]:
        """The options of `up` and `serve`."""
        ports = [f"--{name.lower().replace('_', '-')}={port}" for name, port in self.ports.items()]
        return [f"--repository={self.repository}", "--openai-port=0", *ports]

    def fails(self, command: str, *arguments: object) -> str:
        """What it prints when it fails: one error and one hint, nothing else."""
        said = self(command, *arguments, exit_code=1).stderr
        assert said.count("error: ") == said.count("hint: ") == 1
        assert ONE_SENTENCE.search(said), said
        return said
