"""GGUF files that llama.cpp split are read as one. Run: pytest tests/builder/test_gguf_parts.py"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fakes.gguf_files import llama_weights, write_gguf
from support.damaged_files import refused
from triune_builder.checkpoint import Checkpoint, open_checkpoint


def opened(path: Path) -> Checkpoint:
    return open_checkpoint(str(path), cache=path.parent)


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """The paths of three parts, as the gguf package writes them."""
    folder = tmp_path / "parts"
    folder.mkdir()
    write_gguf(folder / "m.gguf", llama_weights(), dtype="Q8_0", split=8)
    found = sorted(folder.iterdir())
    assert [path.name for path in found] == [f"m-{i:05d}-of-00003.gguf" for i in (1, 2, 3)]
    return found


def test_the_first_part_gives_the_weights_of_all(tmp_path: Path, parts: list[Path]) -> None:
    whole = opened(write_gguf(tmp_path / "whole.gguf", llama_weights(), dtype="Q8_0"))
    split = opened(parts[0])
    assert split.weights.keys() == whole.weights.keys() and split.config == whole.config
    assert split.name == "m" and split.files == tuple(parts)
    for name, tensor in whole.weights.items():
        assert np.array_equal(split.weights[name].float32(), tensor.float32()), name


def test_another_part_is_answered_with_the_first(parts: list[Path]) -> None:
    said = refused(parts[1])
    assert "m-00002-of-00003.gguf is part 2 of 3" in said and "name the first part, m-00001-of-00003.gguf" in said


def test_a_missing_part_is_named(parts: list[Path]) -> None:
    parts[2].unlink()
    assert "lacks 1 of 3 parts, such as m-00003-of-00003.gguf" in refused(parts[0])


def test_a_part_under_another_name_is_refused(parts: list[Path]) -> None:
    renamed = parts[0].rename(parts[0].with_name("model.gguf"))
    assert "its name does not end in -0000N-of-00003.gguf" in refused(renamed)


def test_parts_in_each_others_place_are_refused(parts: list[Path]) -> None:
    shutil.copy(parts[1], parts[2])
    assert "says that it is part 2 of 3, by its name it is part 3 of 3" in refused(parts[0])


def test_a_part_of_another_model_is_refused(tmp_path: Path, parts: list[Path]) -> None:
    (tmp_path / "other").mkdir()
    write_gguf(tmp_path / "other" / "m.gguf", llama_weights(), dtype="Q8_0", split=7)
    shutil.copy(tmp_path / "other" / "m-00002-of-00003.gguf", parts[1])
    assert "which an earlier part has, too" in refused(parts[0])


def test_a_part_that_is_cut_short_is_named(parts: list[Path]) -> None:
    parts[1].write_bytes(parts[1].read_bytes()[:-100])
    assert "m-00002-of-00003.gguf is cut short" in refused(parts[0])


def test_a_count_that_the_tensors_do_not_make_up_is_refused(parts: list[Path]) -> None:
    content = parts[0].read_bytes()
    at = content.index(b"split.tensors.count") + len("split.tensors.count") + 4
    parts[0].write_bytes(content[:at] + (99).to_bytes(4, "little") + content[at + 4 :])
    assert "says that its parts have 99 tensors; they have 20" in refused(parts[0])
