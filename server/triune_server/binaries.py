"""Which Triton serves, and where its server, Python stub and libraries lie. What is missing is one sentence with its remedy.

There are two: NVIDIA's, as its container has it installed, and the embedded one, the wheel nvidia-pytriton unpacked. No other
module knows which it is; what a command line may ask of it, `Binaries` says.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .errors import ServerError
from .stub_python import python_folder

HOME_VARIABLE = "TRIUNE_TRITON_HOME"
INSTALLED = Path("/opt/tritonserver")  # where NVIDIA's container has it
WHEEL = "nvidia-pytriton==0.7.0"  # only its binaries are used, from a folder of their own: its Python pins are old
_INSTALL = f"run `make install`, or: pip install --no-deps --target {Path(sys.prefix) / 'tritonserver'} {WHEEL}"
_BACKEND = "libtriton_python.so"
_STUB = "triton_python_backend_stub"
_LINKED = re.compile(rb"libpython(3\.\d+)\.so")
_GLIBC = (2, 35)
_EMBEDDED = "2.51.0"  # the version in the wheel
_NUMPY_2 = (2, 52)  # from 24.11 on


@dataclass(frozen=True)
class Binaries:
    """A usable server: all paths exist."""

    server: Path
    backends: Path  # holds python/ with the backend and this Python's stub
    libraries: tuple[Path, ...]  # for the loader's search path
    python: Path  # the folder of the python3 whose packages the stubs find
    gpu_metrics: bool = False  # whether it can tell of GPUs


def find_binaries(work_folder: Path, home: Path | None = None) -> Binaries:
    """The server to use: NVIDIA's as it is, or the embedded one, completed under `work_folder` with the stub of this Python.

    Args:
        home: where NVIDIA's lies, or where the wheel nvidia-pytriton was unpacked; by default what TRIUNE_TRITON_HOME says,
            else <environment>/tritonserver, else /opt/tritonserver.

    Raises:
        ServerError: a part is missing, or this machine cannot run it; says which and what to do.
    """
    home = home or _home()
    _check_system()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return _installed(work_folder, home, version) if _is_installed(home) else _embedded(work_folder, home, version)


def _home() -> Path:
    if said := os.environ.get(HOME_VARIABLE):
        return Path(said)
    own = Path(sys.prefix) / "tritonserver"
    return INSTALLED if _is_installed(INSTALLED) and not own.is_dir() else own


def _is_installed(home: Path) -> bool:
    """Whether it lies there as in NVIDIA's container, not as in the wheel."""
    return (home / "bin" / "tritonserver").exists()


def _installed(work_folder: Path, home: Path, version: str) -> Binaries:
    folder = home / "backends" / "python"
    for file in (folder / _BACKEND, folder / _STUB):
        if not file.exists():
            raise ServerError(f"the Triton server at {home} has no {file}", "copy all of backends/python of NVIDIA's container")
    linked = _LINKED.search((folder / _STUB).read_bytes())
    if linked is not None and (theirs := linked[1].decode()) != version:
        raise ServerError(
            f"the stub of the Triton server at {home} is for Python {theirs}, this is Python {version}",
            f"make the environment with Python {theirs}",
        )
    if (home / "TRITON_VERSION").exists():
        _check_numpy((home / "TRITON_VERSION").read_text("utf-8").strip())
    return Binaries(
        home / "bin" / "tritonserver",
        home / "backends",
        (home / "lib", _libpython(version)),
        python_folder(work_folder),
        gpu_metrics=Path("/dev/nvidiactl").exists(),
    )


def _check_numpy(triton: str) -> None:
    """Stubs up to 24.10 (2.51) read strings wrongly with NumPy 2."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", triton)[:2])
    numpy = metadata.version("numpy")
    if numbers < _NUMPY_2 and int(numpy.partition(".")[0]) > 1:
        raise ServerError(
            f"the stub of Triton {triton} reads strings wrongly with NumPy 2, and this is NumPy {numpy}",
            'pip install "numpy<2", or use a newer Triton',
        )


def _embedded(work_folder: Path, home: Path, version: str) -> Binaries:
    base = home / "pytriton" / "tritonserver"
    server = base / "bin" / "tritonserver"
    if not server.exists():
        raise ServerError(f"no Triton server at {server}", _INSTALL)
    stub = base / "python_backend_stubs" / version / _STUB
    if not stub.exists():
        there = sorted((p.name for p in (base / "python_backend_stubs").glob("3.*")), key=lambda v: int(v.split(".")[1]))
        if not there:
            raise ServerError(f"no Python stubs at {base / 'python_backend_stubs'}", _INSTALL)
        raise ServerError(f"the Triton server has no stub for Python {version}; it has {', '.join(there)}", "use one of these")
    if not (base / "backends" / "python" / _BACKEND).exists():
        raise ServerError(f"no Python backend at {base / 'backends' / 'python' / _BACKEND}", _INSTALL)
    _check_numpy(_EMBEDDED)
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
