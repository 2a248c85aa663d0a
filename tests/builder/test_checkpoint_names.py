"""Models named after folders of the project. Run: pytest tests/builder/test_checkpoint_names.py"""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.tiny_folders import write_folder
from fakes.tiny_llama import tiny_checkpoint
from triune_builder import named_models
from triune_builder.checkpoint import Fp8Tensor, open_checkpoint
from triune_builder.errors import BuildError
from triune_builder.inputs import Inputs, Settings
from triune_builder.plan import BuildPlan
from triune_builder.targets import find_target

PROJECT = Path(__file__).parents[2]


def test_the_names_are_folders_of_this_project() -> None:
    assert named_models.PROJECT == PROJECT
    assert named_models.folder_path("r1-nano") == PROJECT / "models" / "r1-nano" / "checkpoint"
    assert named_models.folder_path("r1-nano-fp8").parent == PROJECT / "models" / "r1-nano"


def test_a_name_opens_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named_models, "PROJECT", tmp_path)
    write_folder(named_models.folder_path("r1-nano"), tiny_checkpoint(), "BF16")
    write_folder(named_models.folder_path("r1-nano-fp8"), tiny_checkpoint(), "F8_E4M3")
    plain, eight = (open_checkpoint(name, cache=tmp_path) for name in ("r1-nano", "r1-nano-fp8"))
    assert (plain.name, eight.name) == ("r1-nano", "r1-nano-fp8") and plain.weights.keys() == eight.weights.keys()
    assert any(isinstance(tensor, Fp8Tensor) for tensor in eight.weights.values())


def test_a_folder_that_is_not_there_is_named_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named_models, "PROJECT", tmp_path)
    with pytest.raises(BuildError, match=r"r1-nano-fp8 should lie in .*checkpoint-fp8") as caught:
        open_checkpoint("r1-nano-fp8", cache=tmp_path)
    assert "MODEL=r1-nano-fp8" in str(caught.value.hint)
    with pytest.raises(BuildError) as unknown:
        open_checkpoint("r1-nan", cache=tmp_path)
    assert "r1-nano" in str(unknown.value.hint)


def test_a_new_file_in_a_named_folder_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named_models, "PROJECT", tmp_path)
    folder = write_folder(named_models.folder_path("r1-nano"), tiny_checkpoint(), "BF16")
    plan = BuildPlan(model="r1-nano")
    inputs = Inputs(plan, Settings(build_dir=tmp_path / "build"), find_target(plan.target))
    inputs.remember([folder / "config.json"])
    (folder / "generation_config.json").write_text("{}")
    assert inputs.published() is None
