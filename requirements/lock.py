"""Writes base.txt, test.txt and each target's from their .in files: what a clean environment holds after installing them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
OURS = ("pip==", "setuptools==")


def frozen(python: str, *files: str) -> list[str]:
    """Install `files` with `python` and list every package that is then there."""
    for file in files:
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", str(HERE / file)], check=True)
    listing = subprocess.run([python, "-m", "pip", "freeze"], check=True, capture_output=True, text=True).stdout
    # A build's local tag (torch==2.13.0+cpu) names one machine's file, not a version.
    return [line.split("+")[0] for line in listing.splitlines() if not line.startswith(OURS)]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = f"{folder}/bin/python"
        base = frozen(python, "base.in")
        both = frozen(python, "test.in")
        known = both
        for target in sorted({path.stem for path in HERE.glob("*.in")} - {"base", "test"}):
            every = frozen(python, f"{target}.in")
            (HERE / f"{target}.txt").write_text("\n".join(line for line in every if line not in known) + "\n", "utf-8")
            known = every
    (HERE / "base.txt").write_text("\n".join(base) + "\n", "utf-8")
    (HERE / "test.txt").write_text("\n".join(line for line in both if line not in base) + "\n", "utf-8")


if __name__ == "__main__":
    main()
