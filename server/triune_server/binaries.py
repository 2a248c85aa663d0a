"""Where the embedded tritonserver, its Python stub and libpython lie; each missing thing is one sentence with its remedy."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from .errors import ServerError
from .stub_python import python_folder

HOME_VARIABLE = "TRIUNE_TRITON_HOME"
WHEEL = "nvidia-pytriton==0.7.0"  # only its binaries are used, from a folder of their own: its Python pins are old
_INSTALL = f"run `make install`, or: pip install --no-deps --target {Path(sys.prefix) / 'tritonserver'} {WHEEL}"
_BACKEND = "libtriton_python.so"
_GLIBC = (2, 35)


@dataclass(frozen=True)
class Binaries:
    """A usable server: all paths exist."""

    server: Path
    backends: Path  # holds python/ with the backend and this Python's stub
    libraries: tuple[Path, ...]  # for the loader's search path
    python: Path  # the folder of the python3 whose packages the stubs find


def find_binaries(work_folder: Path, home: Path | None = None) -> Binaries:
    """The embedded server, completed under `work_folder` with the stub of the running Python.

    Args:
        home: where the wheel nvidia-pytriton was unpacked; by default TRIUNE_TRITON_HOME or <environment>/tritonserver.

    Raises:
        ServerError: a part is missing, or this machine cannot run it; says which and what to do.
    """
    home = home or Path(os.environ.get(HOME_VARIABLE) or Path(sys.prefix) / "tritonserver")
    _check_system()
    base = home / "pytriton" / "tritonserver"
    server = base / "bin" / "tritonserver"
    if not server.exists():
        raise ServerError(f"no Triton server at {server}", _INSTALL)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = base / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        there = sorted((p.name for p in (base / "python_backend_stubs").glob("3.*")), key=lambda v: int(v.split(".")[1]))
        if not there:
            raise ServerError(f"no Python stubs at {base / 'python_backend_stubs'}", _INSTALL)
        raise ServerError(f"the Triton server has no stub for Python {version}; it has {', '.join(there)}", "use one of these")
    if not (base / "backends" / "python" / _BACKEND).exists():
        raise ServerError(f"no Python backend at {base / 'backends' / 'python' / _BACKEND}", _INSTALL)
    libraries = (home / "nvidia_pytriton.libs", _libpython(version))
    return Binaries(server, _backends(work_folder, base, stub), libraries, python_folder(work_folder))


def check_machine() -> None:
    """Make sure that the embedded server can run on this machine with this Python, wherever it lies. Set-up asks first.

    Raises:
        ServerError: it cannot.
    """
    _check_system()
    _libpython(f"{sys.version_info.major}.{sys.version_info.minor}")


def _check_system() -> None:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise ServerError(
            f"the embedded Triton server runs on Linux on x86-64, this is {sys.platform} on {platform.machine()}",
            "use NVIDIA's Triton container",
        )
    name, version = platform.libc_ver()
    if name != "glibc":
        raise ServerError(
            "the embedded Triton server needs glibc, this system has another C library", "use NVIDIA's Triton container"
        )
    if tuple(int(p) for p in version.split(".")[:2]) < _GLIBC:
        raise ServerError(
            f"the embedded Triton server needs glibc 2.35, this system has {version}", "use NVIDIA's Triton container"
        )


def _libpython(version: str) -> Path:
    """The folder of libpython, which the stub is linked to."""
    name = f"libpython{version}.so.1.0"
    folders = [Path(str(sysconfig.get_config_var(v))) for v in ("LIBDIR", "LIBPL") if sysconfig.get_config_var(v)]
    folders += [Path(sys.base_prefix) / "lib", Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib64"), Path("/usr/lib")]
    for folder in folders:
        if (folder / name).exists():
            return folder
    raise ServerError(
        f"no {name} in {', '.join(map(str, dict.fromkeys(folders)))}",
        f"use a Python built with --enable-shared, e.g. Debian's packages python{version} and libpython{version}",
    )


def _backends(work_folder: Path, base: Path, stub: Path) -> Path:
    """A backend folder with the stub where the backend looks for it; the installed files stay as they are."""
    backends = work_folder / "backends"
    folder = backends / "python"
    folder.mkdir(parents=True, exist_ok=True)
    for source in [*(base / "backends" / "python").iterdir(), stub]:
        target = folder / source.name
        if source.is_file() and not _same(source, target):
            beside = target.with_name(f"{target.name}.new")  # one that is running cannot be written to
            shutil.copy2(source, beside)
            beside.chmod(0o755)
            beside.replace(target)
    return backends


def _same(source: Path, copy: Path) -> bool:
    if not copy.exists():
        return False
    one, other = source.stat(), copy.stat()
    return one.st_size == other.st_size and int(one.st_mtime) == int(other.st_mtime)
