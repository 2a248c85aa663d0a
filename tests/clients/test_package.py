"""Run: pytest tests/clients/test_package.py - what the wheel promises: names, a lean import, an installation alone."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import triune_client
from triune_client import _errors

CLIENTS = Path(__file__).parents[2] / "clients"
SOURCES = sorted((CLIENTS / "triune_client").glob("*.py"))


def test_all_is_sorted_and_complete() -> None:
    public = {
        name for name, value in vars(triune_client).items() if not name.startswith("_") and not isinstance(value, type(sys))
    }
    assert triune_client.__all__ == sorted(triune_client.__all__)
    assert set(triune_client.__all__) == public | {"__version__"}


def test_every_error_is_exported_and_drawn_in_the_tree() -> None:
    for name, value in vars(_errors).items():
        if isinstance(value, type) and issubclass(value, Exception):
            assert name in triune_client.__all__
            assert f"{name} " in (_errors.__doc__ or "")


def test_the_version_is_the_distributions() -> None:
    assert f'version = "{triune_client.__version__}"' in (CLIENTS / "pyproject.toml").read_text()


def _imported(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(CLIENTS)}
    )
    return set(found.stdout.split())


def test_the_import_brings_httpx_and_the_standard_library_only() -> None:
    # httpx itself may import rich, for its own command line: hence the difference.
    added = _imported("import triune_client") - _imported("import httpx, anyio") - sys.stdlib_module_names
    assert added == {"triune_client"}


def _imports(source: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_each_outside_package_has_one_importer() -> None:
    importers = {
        package: [source.name for source in SOURCES if package in _imports(source)]
        for package in ("httpx", "anyio", "grpc", "tritonclient", "rich", "numpy")
    }
    assert importers == {
        "httpx": ["_http.py", "testing.py"],
        "anyio": ["_async.py"],
        "grpc": ["grpc.py"],
        "tritonclient": ["grpc.py"],
        "rich": ["_rich_terminal.py"],
        "numpy": [],
    }


def test_nothing_of_the_servers_packages_is_imported() -> None:
    assert not [source.name for source in SOURCES if {"triune_runtime", "triune_builder"} & _imports(source)]


def test_a_missing_extra_is_named() -> None:
    code = "import sys; sys.modules['tritonclient'] = None; import triune_client.grpc"
    failed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={"PYTHONPATH": str(CLIENTS)}
    )
    assert 'pip install "triune-client[grpc]"' in failed.stderr


def test_the_package_is_small(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "package.zip", "w", zipfile.ZIP_DEFLATED) as packed:  # a wheel but for its metadata
        for source in [*SOURCES, CLIENTS / "README.md"]:
            packed.write(source, source.name)
    assert (tmp_path / "package.zip").stat().st_size < 90_000


@pytest.mark.slow
def test_the_wheel_works_alone_in_a_clean_environment(tmp_path: Path) -> None:
    sources = tmp_path / "clients"  # a build leaves its traces beside what it builds
    shutil.copytree(CLIENTS, sources, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(sources)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 100_000
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert {f"triune_client/{source.name}" for source in SOURCES} | {"triune_client/py.typed"} <= packed
    venv.create(tmp_path / "v", with_pip=True)
    python = tmp_path / "v" / "bin" / "python"
    install = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install", str(wheel)]
    subprocess.run(install, check=True)
    code = (
        "from triune_client import Client; from triune_client.testing import MockTransport;"
        "print(Client(transport=MockTransport(['Par', 'is'])).generate('hi').text)"
    )
    answer = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert answer.stdout == "Paris\n"
    script = tmp_path / "v" / "bin" / "triune-client"
    unanswered = subprocess.run(
        [str(script), "complete", "--url", "http://127.0.0.1:9", "hi"], capture_output=True, text=True, check=False
    )
    assert (unanswered.returncode, "make up" in unanswered.stderr) == (3, True)
