"""Subjects that cannot be measured say why and leave nothing behind. Run: pytest tests/bench/test_process.py"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from bench.process import NotInstalled, Process, SubjectFailed


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    before = set(psutil.Process().children(recursive=True))
    yield
    assert set(psutil.Process().children(recursive=True)) <= before


def test_a_python_that_is_not_there_means_not_installed(tmp_path: Path) -> None:
    with pytest.raises(NotInstalled, match="not installed: no Python"):
        Process("openvino", {"gguf": "model.gguf"}, tmp_path / "python")


@pytest.mark.parametrize(("subject", "package"), [("openvino", "openvino_genai"), ("llamacpp", "xllamacpp")])
def test_a_package_that_is_not_there_means_not_installed(subject: str, package: str) -> None:
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed here")
    with pytest.raises(NotInstalled, match=f"not installed: its Python has no package {package}"):
        Process(subject, {"gguf": "model.gguf"}, Path(sys.executable))


def test_a_subject_that_fails_at_its_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(SubjectFailed, match=r"ended with code 1: .*no engine\.json"):
        Process("bare", {"repository": str(tmp_path)}, Path(sys.executable))
