"""Finds a Python that Triune runs on, and has it make an environment.

    python3 requirements/triune_setup [--given] FOLDER PART...

It must say its sentence on any Python 3, so this one file keeps to the syntax of 3.6; the others are imported by a newer one.
"""

import os
import signal
import time


def end(number: int, frame: object) -> None:
    """End as the interrupted do, once make has heard of it, too."""
    time.sleep(0.1)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as it is in the background of a script
    signal.signal(signal.SIGINT, end)  # until there is something to clear away; before all other imports

import re  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
VERSION = "import sys; print('{}.{}'.format(*sys.version_info))"


def supported() -> "list[str]":
    """The versions that `requires-python` of pyproject.toml takes, as 3.11, the newest first."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    found = re.search(r'^requires-python = ">=3\.(\d+),<3\.(\d+)"', text, re.MULTILINE)
    assert found, "pyproject.toml says requires-python as a range of minor versions"
    return ["3.{}".format(minor) for minor in range(int(found.group(2)) - 1, int(found.group(1)) - 1, -1)]


def version_of(python: str) -> str:
    """The version of that Python, as 3.11; empty if it does not run."""
    try:
        said = subprocess.check_output([python, "-ISc", VERSION], stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return said.decode("ascii", "replace").strip()


def another(versions: "list[str]", folder: str) -> str:
    """A Python of one of these versions, from PATH or the one that `folder` was made with; empty if there is none."""
    for version in versions:
        found = shutil.which("python" + version)
        if found and version_of(found) == version:
            return found
    made_with = os.path.realpath(str(Path(folder) / "bin" / "python"))
    return made_with if version_of(made_with) in versions else ""


def main(arguments: "list[str]") -> int:
    """Make the environment, or say why not; the exit code."""
    given = "--given" in arguments
    folder = next(a for a in arguments if not a.startswith("--"))
    versions = supported()
    if "{}.{}".format(*sys.version_info) in versions:
        sys.path[:0] = [str(HERE.parent), str(ROOT / "server"), str(ROOT / "runtime")]
        from triune_setup.command import run

        return run(arguments)
    python = "" if given else another(versions, folder)
    if python:
        os.execv(python, [python, "-IS", str(HERE), *arguments])
    sys.stderr.write(
        "error: Triune needs Python {}, and {} is {}.{}.{}{}\n\nhint: install one, e.g. Debian's and Ubuntu's package "
        "python{newest}-venv, or name it: make PYTHON=/path/to/python{newest}\n".format(
            " or ".join(reversed(versions)), sys.executable or "this Python", *sys.version_info[:3],
            "" if given else "; there is no other on PATH", newest=versions[0],
        )
    )  # fmt: skip
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
