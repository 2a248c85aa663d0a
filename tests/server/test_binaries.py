"""Each missing part of the embedded server is one sentence. Run: pytest tests/server/test_binaries.py"""

from __future__ import annotations

import platform
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest

from triune_server import binaries
from triune_server.errors import ServerError

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel as it is unpacked, with empty files, on a system where it could run."""
    base = tmp_path / "home" / "pytriton" / "tritonserver"
    for name in (
        "bin/tritonserver",
        "backends/python/libtriton_python.so",
        f"python_backend_stubs/{VERSION}/triton_python_backend_stub",
    ):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(name.encode())
    library = tmp_path / "lib" / f"libpython{VERSION}.so.1.0"
    library.parent.mkdir()
    library.touch()
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: str(library.parent))
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    return tmp_path / "home"


def failure(tmp_path: Path, home: Path) -> str:
    with pytest.raises(ServerError) as caught:
        binaries.find_binaries(tmp_path / "work", home)
    assert caught.value.hint, "an error without a remedy"
    return str(caught.value)


def test_the_stub_of_this_python_is_put_beside_the_backend(tmp_path: Path, home: Path) -> None:
    for _ in range(2):  # a second start finds everything in its place
        found = binaries.find_binaries(tmp_path / "work", home)
        folder = found.backends / "python"
        assert {p.name for p in folder.iterdir()} == {"libtriton_python.so", "triton_python_backend_stub"}
        assert (folder / "triton_python_backend_stub").stat().st_mode & 0o100
    assert found.libraries == (home / "nvidia_pytriton.libs", tmp_path / "lib")
    assert not list(home.rglob("backends/python/*stub*")), "the installed files stay as they are"


def test_a_missing_server_names_its_place(tmp_path: Path) -> None:
    message = failure(tmp_path, tmp_path / "nothing")
    assert "no Triton server at" in message and "make install" in message


def test_a_missing_stub_names_the_pythons_there_are(tmp_path: Path, home: Path) -> None:
    stubs = home / "pytriton" / "tritonserver" / "python_backend_stubs"
    (stubs / VERSION).rename(stubs / "3.8")
    message = failure(tmp_path, home)
    assert f"no stub for Python {VERSION}; it has 3.8" in message


def test_a_missing_libpython_names_the_package(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stubs = home / "pytriton" / "tritonserver" / "python_backend_stubs"
    (stubs / VERSION).rename(stubs / "3.99")  # of a Python that no system has
    monkeypatch.setattr(sys, "version_info", SimpleNamespace(major=3, minor=99))
    message = failure(tmp_path, home)
    assert "no libpython3.99.so.1.0 in" in message
    assert "libpython3.99" in message.partition("hint: ")[2]


@pytest.mark.parametrize(("version", "works"), [("2.34", False), ("2.35", True), ("3.0", True)])
def test_an_old_glibc_is_refused(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, version: str, works: bool
) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", version))
    if works:
        binaries.find_binaries(tmp_path / "work", home)
    else:
        assert f"needs glibc 2.35, this system has {version}" in failure(tmp_path, home)


def test_another_machine_is_refused(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert "aarch64" in failure(tmp_path, home)
