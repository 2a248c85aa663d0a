"""A checkout that sets up as ours does, by our Makefile and our program, with a registry of one tiny package beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEEDED = (
    "Makefile", "pyproject.toml", "requirements/triune_setup", "server/triune_server/__init__.py",
    "server/triune_server/binaries.py", "server/triune_server/errors.py", "server/triune_server/stub_python.py",
    "runtime/triune_runtime/__init__.py", "runtime/triune_runtime/errors.py",
)  # fmt: skip
LIST = "requirements/clients/tiny.txt"
TARGET = ".venvs/client-tiny/installed"


@dataclass(frozen=True)
class TinyCheckout:
    """The checkout in `root`; its target `TARGET` makes an environment that holds one package, `tiny`."""

    root: Path
    registry: Path

    @property
    def folder(self) -> Path:
        return self.root / TARGET.rpartition("/")[0]

    @property
    def environment(self) -> dict[str, str]:
        """For its processes: no registry but ours, and nothing of the make that may run the tests."""
        hidden = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "PYTHONPATH")
        kept = {name: value for name, value in os.environ.items() if name not in hidden and not name.startswith("PIP_")}
        return kept | {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.registry)}

    def make(self, *variables: str, target: str = TARGET, python: str = sys.executable) -> list[str]:
        """The command line that makes the environment; PYTHON is given, unless it is empty."""
        return [
            "make",
            "-C",
            str(self.root),
            "--no-print-directory",
            target,
            *([f"PYTHON={python}"] if python else []),
            *variables,
        ]

    def run(self, *variables: str, python: str = sys.executable, target: str = TARGET) -> subprocess.CompletedProcess[str]:
        """Make it; no traceback is ever right."""
        done = subprocess.run(
            self.make(*variables, python=python, target=target),
            capture_output=True, text=True, check=False, env=self.environment, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert "Traceback" not in done.stdout + done.stderr, done
        return done

    def says(self) -> str:
        """What the package says when it is imported from the environment."""
        command = [self.folder / "bin" / "python", "-c", "import tiny; print(tiny.WORD)"]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=self.environment).stdout.strip()

    def publish(self, version: str) -> None:
        """Put a version of the package into the registry, and ask for it."""
        info = f"tiny-{version}.dist-info"
        with zipfile.ZipFile(self.registry / f"tiny-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr("tiny/__init__.py", f"WORD = {version!r}\n")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
        (self.root / LIST).write_text(f"tiny=={version}\n")


def tiny_checkout(folder: Path) -> TinyCheckout:
    """One in `folder`, in an awkward path."""
    made = TinyCheckout(folder / "a check out (1) $x 'é", folder / "registry")
    made.registry.mkdir(parents=True)
    for name in NEEDED:
        target = made.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, target)
    (made.root / LIST).parent.mkdir()
    made.publish("1.0")
    return made
