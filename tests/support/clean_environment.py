"""Wheels of this checkout, and environments that hold nothing but what pip installs with them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Imports every module of some packages but the mains, which would run. Arguments: PACKAGE ... [-MODULE ...], those left out.
_IMPORT_ALL = """
import importlib, pkgutil, sys
left_out = tuple(name[1:] for name in sys.argv[1:] if name.startswith("-"))
def walk(package):
    for found in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        if f"{found.name}.".startswith(tuple(f"{name}." for name in left_out)) or found.name.endswith(".__main__"):
            continue
        importlib.import_module(found.name)
        print(found.name)
        if found.ispkg:
            walk(found.name)
for name in sys.argv[1:]:
    if not name.startswith("-"):
        walk(name)
"""


@dataclass(frozen=True, kw_only=True)
class Wheels:
    """All wheels."""

    triune: Path
    client: Path
    load: Path


def source_files(folder: str = ".") -> list[str]:
    """Paths of the files under `folder` that git has or would take; a link counts as a file."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listing.splitlines() if (ROOT / name).exists()]


def build_wheels(folder: Path) -> Wheels:
    """All wheels, built in `folder` as from a fresh clone: what lies about in a checkout must not get into them."""
    sources = folder / "sources"
    for name in source_files():
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, sources / name, follow_symlinks=False)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        f"--wheel-dir={folder}",
        ".",
        "./clients",
        "./load",
    ]
    subprocess.run(command, cwd=sources, check=True)
    (triune,), (client,), (load,) = (folder.glob(f"{name}-*.whl") for name in ("triune", "triune_client", "triune_load"))
    return Wheels(triune=triune, client=client, load=load)


class CleanEnvironment:
    """A virtual environment in `folder`/venv, and an empty folder to work in, far from any checkout."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.work = folder / "venv" / "bin", folder / "work"
        self.work.mkdir(parents=True)
        venv.create(folder / "venv")  # without pip: ours installs into it, which is quicker

    def install(self, *requirements: str | Path) -> None:
        """Have pip resolve and install them, with all they declare."""
        pip = [sys.executable, "-m", "pip", f"--python={self.bin / 'python'}", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--no-compile", *requirements], cwd=self.work, check=True)

    def run(self, program: str, *arguments: str | Path, exit_code: int = 0) -> subprocess.CompletedProcess[str]:
        """A program of the environment, in the empty folder; no traceback is ever right."""
        hidden = ("PYTHONPATH", "VIRTUAL_ENV")
        done = subprocess.run(
            [self.bin / program, *arguments], cwd=self.work, capture_output=True, text=True, check=False,
            env={name: value for name, value in os.environ.items() if name not in hidden},
        )  # fmt: skip
        assert done.returncode == exit_code, done
        assert "Traceback" not in done.stdout + done.stderr, done
        return done

    def import_all(self, *packages: str, left_out: tuple[str, ...] = ()) -> list[str]:
        """Import every module of the packages in one process; their names."""
        arguments = [*packages, *(f"-{name}" for name in left_out)]
        return self.run("python", "-c", _IMPORT_ALL, *arguments).stdout.split()
