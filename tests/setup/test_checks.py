"""What cannot work is said before any work, in one sentence. Run: pytest tests/setup/test_checks.py"""

from __future__ import annotations

import ast
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest

from triune_server import binaries
from triune_setup import checks
from triune_setup.errors import SetupError

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "requirements" / "triune_setup"


def refused(folder: Path, needed_bytes: int = 0) -> str:
    with pytest.raises(SetupError) as caught:
        checks.check(folder, needed_bytes)
    assert caught.value.hint, "an error without a remedy"
    assert "\n" not in f"{caught.value}{caught.value.hint}"
    return f"{caught.value}; {caught.value.hint}"


def test_this_machine_passes(tmp_path: Path) -> None:
    checks.check(tmp_path / "new" / "folder", 1)


def test_the_first_file_can_be_read_by_python_3_6() -> None:
    ast.parse((PROGRAM / "__main__.py").read_text("utf-8"), feature_version=(3, 6))


def fake_python(path: Path, version: str, program: str = "") -> Path:
    """A program that answers as a Python of that version does when it is asked, and otherwise runs `program`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\ncase "$1" in -ISc) echo {version};; *) {program or "exit 1"};; esac\n')
    path.chmod(0o755)
    return path


def as_version(version: tuple[int, int, int], folder: Path, *arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    """The program's first file, run by a Python that says it is of another version."""
    script = (
        f"import sys, runpy; sys.version_info = {version}; sys.argv = ['x', *{list(arguments)!r}]; "
        f"runpy.run_path({str(PROGRAM / '__main__.py')!r}, run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PATH": path},
    )


@pytest.mark.parametrize("version", [(3, 10, 13), (3, 13, 0), (3, 14, 1), (3, 6, 15)])
def test_another_python_is_refused_by_its_version(tmp_path: Path, version: tuple[int, int, int]) -> None:
    done = as_version(version, tmp_path, ".venv", "base", path=str(tmp_path))
    assert done.returncode == 1
    assert f"needs Python 3.11 or 3.12, and {sys.executable} is {'.'.join(map(str, version))}" in done.stderr
    assert "hint: " in done.stderr and "PYTHON=" in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_python_that_fits_is_found_on_the_path(tmp_path: Path) -> None:
    fake_python(tmp_path / "python3.12", "", "exit 9")  # as a wrapper does that has no 3.12 to run
    fake_python(tmp_path / "python3.11", "3.11", 'echo "taken: $*"')
    done = as_version((3, 13, 0), tmp_path, ".venv", "base", path=f"{tmp_path}:/usr/bin:/bin")
    assert done.stdout == f"taken: -IS {PROGRAM} .venv base\n", done
    done = as_version((3, 13, 0), tmp_path, "--given", ".venv", "base", path=f"{tmp_path}:/usr/bin:/bin")
    assert done.returncode == 1 and "taken" not in done.stdout, "one that is named is not replaced by another"


@pytest.mark.parametrize("version", ["3.6", "3.8", "3.9", "3.10", "3.13", "3.14"])
def test_a_real_python_of_another_version_says_its_sentence(version: str, tmp_path: Path) -> None:
    python = shutil.which(f"python{version}")
    if not python or subprocess.run([python, "-c", ""], check=False, capture_output=True).returncode:
        pytest.skip(f"no Python {version} here")
    done = subprocess.run(
        [python, "-IS", PROGRAM, "--given", ".venv", "base"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1 and done.stderr.startswith("error: Triune needs Python 3.11 or 3.12, and "), done
    assert f"is {version}." in done.stderr


def test_no_python_at_all_is_said(tmp_path: Path) -> None:
    done = subprocess.run(["make", "install", "PYTHON=no-such-python"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "error: there is no Python: no-such-python is not on PATH" in done.stderr and "hint: " in done.stderr


@pytest.mark.parametrize("module", ["venv", "ensurepip", "ssl"])
def test_a_python_without_a_module_names_the_package_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    said = refused(tmp_path / "new")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"has no module {module}" in said and f"python{version}-venv" in said


def test_a_python_without_shared_library_is_refused_as_the_server_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: str(tmp_path))
    monkeypatch.setattr(sys, "version_info", SimpleNamespace(major=3, minor=99))  # of which no system has a library
    said = refused(tmp_path / "new")
    assert said.startswith("no libpython3.99.so.1.0 in ") and "--enable-shared" in said


@pytest.mark.parametrize(
    ("machine", "libc", "words"),
    [
        ("aarch64", ("glibc", "2.40"), "runs on Linux on x86-64"),
        ("x86_64", ("glibc", "2.31"), "needs glibc 2.35, this system has 2.31"),
        ("x86_64", ("", ""), "another C library"),
    ],
)
def test_another_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, libc: tuple[str, str], words: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    assert words in refused(tmp_path / "new")
    assert binaries.check_machine is checks.check_machine, "set-up and server ask the same"


@pytest.mark.parametrize("name", ["a:b", "a\nb", "a\x1b[1mb", "a\udcffb"])
def test_a_path_that_programs_cannot_have_is_refused(tmp_path: Path, name: str) -> None:
    said = refused(tmp_path / name / ".venv")
    assert "no environment of Python can lie in" in said
    said.encode("utf-8")  # it can be printed


def test_a_full_disk_is_seen_before(tmp_path: Path) -> None:
    said = refused(tmp_path / "new", 10**18)
    assert "needs about 1000000000.0 GB, and the disk of" in said and "GB free" in said


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    if os.getuid() == 0:  # whom modes do not stop
        assert "cannot be written to: " in refused(Path("/proc/new"))
        return
    tmp_path.chmod(0o500)
    assert f"{tmp_path} cannot be written to: Permission denied" in refused(tmp_path / "new")


def test_what_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    assert "is a file" in refused(tmp_path / "file")
    assert "is a link to nowhere, which is not there" in refused(tmp_path / "link")
