"""A stub, which runs Python in isolation, imports what this process would. Run: pytest tests/server/test_stub_python.py"""

from __future__ import annotations

import os
import site
import subprocess
import sys
from pathlib import Path

import pytest

from triune_server.stub_python import python_folder


@pytest.fixture(autouse=True)
def no_packages_of_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("site.ENABLE_USER_SITE", False)


def package(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(text, "utf-8")
    return folder


def said_in_isolation(programs: Path, code: str) -> str:
    """What the `python3` there says, as isolated as a stub is."""
    found = {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": "/nowhere"}
    done = subprocess.run(["python3", "-I", "-c", code], env=found, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_without_other_folders_it_is_the_folder_of_this_python(tmp_path: Path) -> None:
    assert python_folder(tmp_path, {}) == Path(sys.executable).parent
    assert python_folder(tmp_path, {"PYTHONPATH": f"{tmp_path / 'none'}:"}) == Path(sys.executable).parent
    assert not list(tmp_path.iterdir())


def test_packages_of_pythonpath_are_found_first_and_in_order(tmp_path: Path) -> None:
    one, two = package(tmp_path / "a b", "mine", "WHO = 'one'"), package(tmp_path / "two", "mine", "WHO = 'two'")
    package(two, "psutil", "WHO = 'not the installed one'")
    programs = python_folder(tmp_path / "run", {"PYTHONPATH": f"{one}:{two}"})
    assert said_in_isolation(programs, "import mine, psutil; print(mine.WHO, psutil.WHO)") == "one not the installed one"


def test_what_is_installed_is_found_too_and_so_is_the_standard_library(tmp_path: Path) -> None:
    package(tmp_path / "more", "mine", "")
    programs = python_folder(tmp_path / "run", {"PYTHONPATH": str(tmp_path / "more")})
    import numpy

    told = said_in_isolation(programs, "import ssl, mine, numpy; print(numpy.__file__)")
    assert told == numpy.__file__


def test_who_asks_where_packages_are_installed_is_told_where_they_are_here(tmp_path: Path) -> None:
    package(tmp_path / "more", "mine", "")
    programs = python_folder(tmp_path / "run", {"PYTHONPATH": str(tmp_path / "more")})
    told = said_in_isolation(programs, "import site; print(*site.getsitepackages(), sep='\\n')").splitlines()
    assert set(site.getsitepackages()) <= set(told)


def test_a_relative_folder_is_meant_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path / "more", "mine", "WHO = 1")
    monkeypatch.chdir(tmp_path)
    programs = python_folder(Path("run"), {"PYTHONPATH": "more"})
    monkeypatch.chdir("/")
    assert said_in_isolation(programs, "import mine; print(mine.WHO)") == "1"


def test_packages_of_a_user_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = package(tmp_path / "own", "mine", "WHO = 'a user'")
    monkeypatch.setattr("site.ENABLE_USER_SITE", True)
    monkeypatch.setattr("site.getusersitepackages", lambda: str(own))
    assert said_in_isolation(python_folder(tmp_path / "run", {}), "import mine; print(mine.WHO)") == "a user"


def test_a_second_start_finds_it_renewed(tmp_path: Path) -> None:
    for who in ("one", "two"):
        folder = package(tmp_path / who, "mine", f"WHO = {who!r}")
        programs = python_folder(tmp_path / "run", {"PYTHONPATH": str(folder)})
        assert said_in_isolation(programs, "import mine; print(mine.WHO)") == who
