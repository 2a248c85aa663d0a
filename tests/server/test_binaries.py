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
    monkeypatch.setattr(binaries.metadata, "version", lambda name: "1.26.4")
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


@pytest.fixture
def installed(tmp_path: Path, home: Path) -> Path:
    """As NVIDIA's container has it, with empty files."""
    folder = tmp_path / "opt" / "tritonserver"
    stub = b"\x7fELF libpython" + VERSION.encode() + b".so.1.0"
    for name, content in (
        ("bin/tritonserver", b""),
        ("backends/python/libtriton_python.so", b""),
        ("backends/python/triton_python_backend_stub", stub),
        ("TRITON_VERSION", b"2.68.0\n"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_an_installed_triton_is_used_as_it_lies(tmp_path: Path, installed: Path) -> None:
    found = binaries.find_binaries(tmp_path / "work", installed)
    assert (found.server, found.backends) == (installed / "bin" / "tritonserver", installed / "backends")
    assert found.libraries == (installed / "lib", tmp_path / "lib")
    assert not (tmp_path / "work").exists(), "nothing is copied: a container's writable places may run no programs"


def test_an_installed_triton_is_found_where_the_environment_has_none(
    tmp_path: Path, home: Path, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(binaries.HOME_VARIABLE, raising=False)
    monkeypatch.setattr(binaries, "INSTALLED", installed)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
    assert binaries.find_binaries(tmp_path / "work").server == installed / "bin" / "tritonserver"
    (tmp_path / "environment").mkdir()
    (tmp_path / "environment" / "tritonserver").symlink_to(home)
    assert binaries.find_binaries(tmp_path / "work").backends == tmp_path / "work" / "backends", "its own comes first"


def test_an_installed_triton_for_another_python_is_refused(tmp_path: Path, installed: Path) -> None:
    (installed / "backends" / "python" / "triton_python_backend_stub").write_bytes(b"libpython3.99.so.1.0")
    assert f"is for Python 3.99, this is Python {VERSION}" in failure(tmp_path, installed)


@pytest.mark.parametrize("name", ["libtriton_python.so", "triton_python_backend_stub"])
def test_an_installed_triton_without_its_python_backend_is_refused(tmp_path: Path, installed: Path, name: str) -> None:
    (installed / "backends" / "python" / name).unlink()
    assert name in failure(tmp_path, installed)


@pytest.mark.parametrize(
    ("triton", "numpy", "works"),
    [("2.51.0", "1.26.4", True), ("2.51.0", "2.3.1", False), ("2.52.0", "2.3.1", True), ("3.0.0", "2.3.1", True)],
)
def test_numpy_2_is_for_newer_tritons_alone(
    tmp_path: Path, installed: Path, monkeypatch: pytest.MonkeyPatch, triton: str, numpy: str, works: bool
) -> None:
    (installed / "TRITON_VERSION").write_text(triton)
    monkeypatch.setattr(binaries.metadata, "version", lambda name: numpy)
    if works:
        binaries.find_binaries(tmp_path / "work", installed)
    else:
        assert f"Triton {triton} reads strings wrongly with NumPy 2, and this is NumPy {numpy}" in failure(tmp_path, installed)


def test_the_embedded_triton_is_refused_with_numpy_2(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries.metadata, "version", lambda name: "2.0.0")
    assert "with NumPy 2, and this is NumPy 2.0.0" in failure(tmp_path, home)
