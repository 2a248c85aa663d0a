"""Which packages the server's Python stubs find: those that this process finds.

A stub runs Python in isolation: it reads neither PYTHONPATH nor the packages of a user, only those of the environment whose
`python3` comes first in PATH. Where this process has packages from elsewhere, as it may in a container or a source tree, the
stubs get an environment of their own that names them all.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

_FOLDER = "python"  # in the folder of a run


def python_folder(work_folder: Path, environ: Mapping[str, str] | None = None) -> Path:
    """The folder of the `python3` that must come first in PATH.

    Args:
        work_folder: an environment that is needed is written there.
        environ: by default this process's own; its PYTHONPATH counts.
    """
    elsewhere = _elsewhere(os.environ if environ is None else environ)
    if not elsewhere:
        return Path(sys.executable).parent
    return _write(work_folder.absolute() / _FOLDER, elsewhere, site.getsitepackages())


def _elsewhere(environ: Mapping[str, str]) -> list[str]:
    """Folders that a stub would not look into."""
    named = [str(Path(entry).absolute()) for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    users = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return [entry for entry in (*named, *users) if Path(entry).exists()]


def _write(folder: Path, elsewhere: Sequence[str], installed: Sequence[str]) -> Path:
    """An environment without packages of its own: `elsewhere` first, then what is installed, with what that itself names."""
    programs = folder / "bin"
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for made in (programs, packages):
        made.mkdir(parents=True, exist_ok=True)
    base = Path(str(sysconfig.get_config_var("BINDIR")))
    (folder / "pyvenv.cfg").write_text(f"home = {base}\ninclude-system-site-packages = false\n", "utf-8")
    program = programs / "python3"
    program.unlink(missing_ok=True)
    program.symlink_to(Path(sys.executable).resolve())
    # Who looks for libraries among installed packages, as CUDA's do, asks `site` where these lie.
    lines = [*elsewhere, f"import site; site.PREFIXES.extend({list(dict.fromkeys(site.PREFIXES))!r})"]
    lines += [f"import site; site.addsitedir({entry!r})" for entry in installed]
    (packages / "triune.pth").write_text("\n".join([*lines, ""]), "utf-8")
    return programs
