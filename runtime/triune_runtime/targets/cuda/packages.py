"""Where ONNX Runtime for CUDA and NVIDIA's libraries lie: in a folder of their own, beside ONNX Runtime for the CPU.

Both packages of ONNX Runtime are a folder of one name, and neither is a newer one of the other: installed into one environment,
the latter would overwrite the former, and engines for the CPU would run with what they were not proved with.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ...errors import ManifestError

HOME_VARIABLE = "TRIUNE_CUDA_HOME"
_FOLDER, _PACKAGE = "cuda", "onnxruntime"  # in an environment; in that folder
INSTALL = (  # for whoever finds none
    "`make up TARGET=cuda` installs it where an NVIDIA GPU is; by hand: pip install --no-deps --target ENVIRONMENT/cuda -r "
    "requirements/cuda-libraries.txt"
)


def find_home(
    environ: dict[str, str] | None = None, path: Sequence[str] | None = None, prefix: str = sys.prefix
) -> Path | None:
    """The folder; None: there is none, and the environment's own ONNX Runtime is to be tried.

    Args:
        environ: where TRIUNE_CUDA_HOME may say it.
        path: as sys.path; a server's process may run in an environment without being of it.
    """
    said = (os.environ if environ is None else environ).get(HOME_VARIABLE)
    if said:
        return Path(said)
    sites = [Path(entry) for entry in (sys.path if path is None else path) if Path(entry).name == "site-packages"]
    homes = [Path(prefix) / _FOLDER, *(site.parents[2] / _FOLDER for site in sites if len(site.parents) > 2)]
    return next((home for home in homes if (home / _PACKAGE).is_dir()), None)


def use(home: Path | None = None) -> None:
    """Let `import onnxruntime` find the package for CUDA; call it before the first such import.

    Args:
        home: its folder; by default `find_home()`.

    Raises:
        ManifestError: this process uses the package of an engine for the CPU already.
    """
    home = home or find_home()
    if home is None or str(home) in sys.path:
        return
    if (module := sys.modules.get(_PACKAGE)) is not None:
        raise ManifestError(
            f"this process has ONNX Runtime {getattr(module, '__version__', '')} for the CPU in use, and an engine for CUDA "
            "needs its own",
            "load engines of the two kinds in processes of their own",
        )
    sys.path.insert(0, str(home))
