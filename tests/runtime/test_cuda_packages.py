"""ONNX Runtime for CUDA is found apart from that for the CPU. Run: pytest tests/runtime/test_cuda_packages.py"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from triune_runtime.errors import ManifestError
from triune_runtime.targets.cuda import packages

RUNTIME = Path(packages.__file__).parents[3]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An environment's folder for CUDA, with a package that says which it is."""
    package = tmp_path / "cuda" / "onnxruntime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = 'of CUDA'\n")
    return package.parent


def test_the_folder_is_that_of_the_setting_else_of_the_environment_else_of_where_packages_lie(home: Path) -> None:
    root = home.parent
    site = str(root / "lib" / "python3.11" / "site-packages")
    assert packages.find_home({}, [], prefix=str(root)) == home
    assert packages.find_home({}, ["/elsewhere", site], prefix="/usr") == home
    assert packages.find_home({packages.HOME_VARIABLE: "/mine"}, [site], prefix=str(root)) == Path("/mine")
    assert packages.find_home({}, ["site-packages", "/elsewhere"], prefix="/usr") is None


def test_the_package_for_cuda_is_imported_in_the_place_of_the_other(home: Path) -> None:
    program = (
        "from triune_runtime.targets.cuda import packages; packages.use(); packages.use(); import onnxruntime, numpy; "
        "print(onnxruntime.__version__, numpy.__name__)"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(RUNTIME), packages.HOME_VARIABLE: str(home)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout.split() == ["of", "CUDA", "numpy"]


def test_a_process_that_uses_the_other_package_is_told_so(home: Path) -> None:
    path = list(sys.path)
    with pytest.raises(ManifestError, match=f"has ONNX Runtime {onnxruntime.__version__} for the CPU in use") as error:
        packages.use(home)
    assert error.value.hint == "load engines of the two kinds in processes of their own"
    assert sys.path == path
