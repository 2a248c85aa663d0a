"""What `make contracts` writes is as the tables say, and nothing stale goes unnoticed.

Run: pytest tests/repository/test_declared_files.py
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from triune_builder.repository.config_text import parse
from triune_runtime.contracts import configs, render
from triune_runtime.contracts.models import ENSEMBLES, MODELS

ROOT = Path(__file__).parents[2]
BLOCKS = (
    "runtime/triune_runtime/request.py", "runtime/triune_runtime/options/wire.py", "docs/options.md", "docs/compatibility.md",
    "clients/README.md",
)  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The files that are written, elsewhere."""
    shutil.copytree(ROOT / "model_repository", tmp_path / "model_repository", symlinks=True)
    for name in (*BLOCKS, "clients/triune_client/_declared.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_no_written_file_is_stale() -> None:
    assert render.stale(ROOT) == [], "run `make contracts`"


def test_every_model_of_the_repository_is_declared() -> None:
    assert sorted(MODELS) == sorted(path.name for path in (ROOT / "model_repository").iterdir())


def replaced(name: str, old: str, new: str) -> tuple[str, Callable[[Path], None]]:
    def change(path: Path) -> None:
        text = path.read_text("utf-8")
        assert old in text, f"{path} has no {old!r}"
        path.write_text(text.replace(old, new, 1), "utf-8")

    return name, change


def no_link(path: Path) -> None:
    path.unlink()
    path.write_text("a program of its own", "utf-8")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        replaced("model_repository/triune/config.pbtxt", '"min_p" data_type: TYPE_FP32', '"min_p" data_type: TYPE_FP64'),
        replaced("model_repository/vllm_model/config.pbtxt", "cum_log_probs", "cum_logprobs"),
        replaced("clients/triune_client/_declared.py", '    "min_p": "FP32",\n', ""),
        replaced("runtime/triune_runtime/request.py", "min_p: float = 0.0", "min_p: float = 0.1"),
        replaced("runtime/triune_runtime/options/wire.py", "n: int = 1", "n: int = 2"),
        replaced("docs/options.md", "`min_p`", "`min_q`"),
        replaced("docs/compatibility.md", "| `vllm_model` |", "| `vllm` |"),
        replaced("clients/README.md", "| `min_p` |", "| `min_q` |"),
        ("model_repository/triune/1/.gitkeep", Path.unlink),
        ("model_repository/tokenize_2d/1/model.py", no_link),
    ],
)  # fmt: skip
def test_a_written_file_that_was_changed_is_found_and_written_anew(
    tree: Path, name: str, change: Callable[[Path], None]
) -> None:
    change(tree / name)
    assert render.stale(tree) == [tree / name]
    render.write(tree)
    assert render.stale(tree) == []
    assert (tree / name).read_bytes() == (ROOT / name).read_bytes()


def test_a_model_that_is_not_declared_is_found(tree: Path) -> None:
    (tree / "model_repository" / "old_alias").mkdir()
    assert render.stale(tree) == [tree / "model_repository" / "old_alias"]


def test_an_alias_is_a_row_and_its_folder_is_written(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alias = dataclasses.replace(ENSEMBLES[1], name="preprocessing", comment="The model `ensemble` under another name.")
    for module in (configs, render):
        monkeypatch.setattr(module, "ENSEMBLES", (*ENSEMBLES, alias))
    folder = tree / "model_repository" / "preprocessing"
    assert render.stale(tree) == [folder / "config.pbtxt", folder / "1" / ".gitkeep", tree / "docs" / "compatibility.md"]
    render.write(tree)
    texts = [(tree / "model_repository" / name / "config.pbtxt").read_text("utf-8") for name in ("preprocessing", "ensemble")]
    assert parse(texts[0], "preprocessing") == parse(texts[1], "ensemble")
    assert (folder / "1" / ".gitkeep").read_bytes() == b""


def test_a_file_without_its_marks_is_refused(tree: Path) -> None:
    (tree / "docs" / "options.md").write_text("nothing", "utf-8")
    with pytest.raises(ValueError, match=r"options\.md has not one line '<!-- written by `make contracts`: begin -->'"):
        render.write(tree)
